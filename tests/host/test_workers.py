"""Two workers: one leads, both serve, and a dead one is replaced."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import yaml

from tests.packages import recording_package
from tests.support import bus, manifest, subscriber, wait_for


def test_one_worker_leads_and_both_serve_and_a_dead_leader_is_followed(tmp_path: Path) -> None:
    record = tmp_path / "record"
    record.touch()
    env = {"PYTHONPATH": str(recording_package(tmp_path / "site")), "RECORD": str(record)}
    folder = tmp_path / "manifests"
    folder.mkdir()

    def calls(hook: str) -> list[int]:
        lines = (line.split() for line in record.read_text().splitlines())
        return [int(pid) for pid, called, *_ in lines if called == hook]

    with subscriber() as sink:
        subscription = manifest("Subscription", "one", channel="orders", subscriber=sink.url())
        objects = [manifest("Bus", "demo"), manifest("Channel", "orders", bus="demo"), subscription]
        (folder / "all.yaml").write_text(yaml.safe_dump_all(objects))
        options = ("--driver", "recording", "--workers", "2")
        with bus(folder, tmp_path / "state", *options, env=env) as process:
            wait_for(lambda: len(calls("subscribe")) == 2, what="both workers subscribe")
            workers = set(process.worker_pids())
            assert set(calls("subscribe")) == workers
            assert len(calls("provision")) == 1

            leader = int((tmp_path / "state" / "leadership" / "provisioner.lock").read_text())
            assert leader in workers
            assert calls("provision") == [leader]
            began = time.monotonic()
            os.kill(leader, signal.SIGKILL)

            def followed() -> bool:
                text = (tmp_path / "state" / "leadership" / "provisioner.lock").read_text().strip()
                return text.isdigit() and int(text) != leader and int(text) in process.worker_pids()

            wait_for(followed, 5, "another worker leads")
            wait_for(lambda: len(set(process.worker_pids()) - {leader}) == 2, 5, "the dead worker is replaced")
            assert time.monotonic() - began < 5
            wait_for(lambda: len(calls("subscribe")) == 3, what="the new worker subscribes")
            # A new channel shows that the new leader leads.
            more = [*objects, manifest("Channel", "more", bus="demo")]
            (folder / "all.yaml").write_text(yaml.safe_dump_all(more))
            wait_for(lambda: process.send("more").status == 202, what="the new channel")
            assert calls("provision")[-1] != leader
            for _ in range(20):
                assert process.send("orders").status == 202
            wait_for(lambda: len(sink.requests) == 20)
            wait_for(lambda: process.metric("bus_deliveries_total") == 20, what="the metrics of both workers")
            assert process.stop() == 0
        assert len(calls("closed")) == 2, "each worker that was stopped closed its driver"
        assert not calls("unsubscribe")


def test_provisioner_and_dispatcher_may_be_processes_of_their_own(tmp_path: Path) -> None:
    record = tmp_path / "record"
    record.touch()
    env = {"PYTHONPATH": str(recording_package(tmp_path / "site")), "RECORD": str(record)}
    folder = tmp_path / "manifests"
    folder.mkdir()
    with subscriber() as sink:
        subscription = manifest("Subscription", "one", channel="orders", subscriber=sink.url())
        objects = [manifest("Bus", "demo"), manifest("Channel", "orders", bus="demo"), subscription]
        (folder / "all.yaml").write_text(yaml.safe_dump_all(objects))
        options = ("--driver", "recording", "--role")
        with bus(folder, tmp_path / "state", *options, "dispatcher", env=env) as dispatcher:
            answer = dispatcher.send("orders")
            assert answer.status == 503
            assert int(answer.headers["retry-after"]) >= 1
            assert "not provisioned" in answer.text
            with bus(folder, tmp_path / "state", *options, "provisioner", env=env) as provisioner:
                wait_for(lambda: dispatcher.send("orders").status == 202, what="the channel is provisioned")
                hooks = {tuple(line.split()[:2]) for line in record.read_text().splitlines()}
                assert {hook for pid, hook in hooks if int(pid) in provisioner.worker_pids()} == {
                    "sync_bus",
                    "provision",
                }
                assert "provision" not in {hook for pid, hook in hooks if int(pid) in dispatcher.worker_pids()}
                wait_for(lambda: sink.requests)
