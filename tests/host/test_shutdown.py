"""Stopping: nothing that was answered 202 is lost, nobody who hangs holds it up, and it happens in order."""

from __future__ import annotations

import re
import signal
import socket
import threading
import time
from pathlib import Path

import pytest
import yaml

from tests.host.load import Load
from tests.packages import recording_package
from tests.support import Answer, BusProcess, Request, bus, manifest, request, subscriber, wait_for


def write(folder: Path, **subscribers: str) -> Path:
    """One channel `orders` with these subscriptions."""
    folder.mkdir()
    objects = [manifest("Bus", "demo"), manifest("Channel", "orders", bus="demo")]
    objects += [manifest("Subscription", name, channel="orders", subscriber=url) for name, url in subscribers.items()]
    (folder / "all.yaml").write_text(yaml.safe_dump_all(objects))
    return folder


def half_open(address: str) -> socket.socket:
    """A connection whose request never ends."""
    host, _, port = address.rpartition(":")
    sock = socket.create_connection((host, int(port)), timeout=10)
    sock.sendall(b"POST / HTTP/1.1\r\nHost: orders.default\r\nContent-Length: 100\r\n\r\nhalf")
    return sock


def given_up(process: BusProcess) -> int:
    """What the workers say that they gave up."""
    return sum(int(found[1]) for line in process.says('"stopped"') if (found := re.search(r'"given_up": (\d+)', line)))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("workers", [1, 2])
def test_what_was_accepted_is_delivered(tmp_path: Path, number: signal.Signals, workers: int) -> None:
    def behave(_: Request) -> Answer:
        time.sleep(0.002)  # a subscriber that takes a little: there is something to drain
        return Answer()

    with subscriber(behave) as server:
        folder = write(tmp_path / "manifests", one=server.url("one"), two=server.url("two"))
        options = ("--driver", "stub", "--workers", str(workers), "--drain-timeout", "20")
        with bus(folder, tmp_path / "state", *options) as process:
            process.wait_served("orders")
            incomplete = half_open(process.events)
            with Load(process.events, "orders", senders=4) as load:
                wait_for(lambda: len(load.accepted) > 300)
                began = time.monotonic()
                assert process.stop(number, timeout=30) == 0
                assert time.monotonic() - began < 20
            incomplete.close()
        for name in ("one", "two"):
            assert set(server.bodies(name)) >= load.accepted
        assert set(load.statuses) <= {202, 503}
        print(f"accepted {len(load.accepted)}, refused {len(load.refused)}, lost 0")
        assert given_up(process) == 0
        assert len(process.says('"stopped"')) == workers


def test_readyz_says_that_it_stops_while_it_drains(tmp_path: Path) -> None:
    release = threading.Event()

    def behave(_: Request) -> Answer:
        release.wait(20)
        return Answer()

    with subscriber(behave) as server:
        folder = write(tmp_path / "manifests", one=server.url())
        with bus(folder, tmp_path / "state", "--driver", "stub") as process:
            process.wait_served("orders")
            assert process.send("orders").status == 202
            wait_for(lambda: server.requests)
            process.process.send_signal(signal.SIGTERM)
            wait_for(lambda: not process.is_ready(), 5, "readyz turns 503")
            answer = request(process.admin, "GET", "/readyz", body=None)
            assert answer.status == 503
            assert "stopping" in answer.text
            refused = process.send("orders")
            assert refused.status == 503
            assert int(refused.headers["retry-after"]) >= 1
            release.set()
            assert process.process.wait(10) == 0
        assert given_up(process) == 0


def test_a_subscriber_that_hangs_is_given_up_and_counted(tmp_path: Path) -> None:
    release = threading.Event()

    def behave(got: Request) -> Answer:
        if got.host.startswith("hung"):
            release.wait(30)
        return Answer()

    with subscriber(behave) as server:
        folder = write(tmp_path / "manifests", hung=server.url("hung"), good=server.url("good"))
        with bus(folder, tmp_path / "state", "--driver", "stub", "--drain-timeout", "1") as process:
            process.wait_served("orders")
            incomplete = half_open(process.events)
            for _ in range(10):
                assert process.send("orders").status == 202
            wait_for(lambda: len(server.bodies("good")) == 10)
            began = time.monotonic()
            assert process.stop(timeout=20) == 0
            assert 0.9 < time.monotonic() - began < 6
            incomplete.close()
            release.set()
        assert given_up(process) == 10
        dropped = process.says("events dropped", "default/hung", '"shutdown"')
        assert sum(int(re.findall(r'"count": (\d+)', line)[0]) for line in dropped) == 10


def test_what_is_to_be_tried_again_too_late_does_not_hold_it_up(tmp_path: Path) -> None:
    with subscriber(lambda _: Answer(503, b"", {"retry-after": "50"})) as server:
        folder = write(tmp_path / "manifests", one=server.url())
        with bus(folder, tmp_path / "state", "--driver", "stub", "--drain-timeout", "30") as process:
            process.wait_served("orders")
            assert process.send("orders").status == 202
            wait_for(lambda: process.metric("bus_delivery_retries_total") == 1)
            began = time.monotonic()
            assert process.stop(timeout=20) == 0
            assert time.monotonic() - began < 10
        assert given_up(process) == 1


def test_the_order(tmp_path: Path) -> None:
    """Readiness goes first, the driver closes after the last delivery, and leadership is given up after that."""
    record = tmp_path / "record"
    record.touch()
    release = threading.Event()

    def behave(_: Request) -> Answer:
        release.wait(20)
        return Answer()

    env = {"PYTHONPATH": str(recording_package(tmp_path / "site")), "RECORD": str(record)}
    lock = tmp_path / "state" / "leadership" / "dispatcher.lock"
    with subscriber(behave) as server:
        folder = write(tmp_path / "manifests", one=server.url())
        with bus(folder, tmp_path / "state", "--driver", "recording", env=env) as process:
            process.wait_served("orders")
            assert process.send("orders", b"last").status == 202
            wait_for(lambda: server.requests)
            process.process.send_signal(signal.SIGTERM)
            wait_for(lambda: not process.is_ready())
            wait_for(lambda: "stopping" in record.read_text(), what="the driver is told")
            assert "closed" not in record.read_text(), "it is needed until the last event is settled"
            assert lock.read_text().strip(), "the one that drains still leads"
            # The monitor has ended: what changes now calls no hook.
            (folder / "more.yaml").write_text(yaml.safe_dump(manifest("Channel", "more", bus="demo")))
            (folder / "all.yaml").write_text(yaml.safe_dump(manifest("Bus", "demo")))
            release.set()
            assert process.process.wait(10) == 0
    hooks = [line.split()[1] for line in record.read_text().splitlines()]
    assert hooks[-2:] == ["stopping", "closed"]
    assert hooks.count("provision") == 1
    assert "unsubscribe" not in hooks
    assert "unprovision" not in hooks


def test_another_host_leads_while_the_first_still_drains(tmp_path: Path) -> None:
    hung = threading.Event()

    def hang(_: Request) -> Answer:
        hung.wait(20)
        return Answer()

    with subscriber(hang) as server:
        folder = write(tmp_path / "manifests", one=server.url())
        options = ("--driver", "stub", "--drain-timeout", "15")
        with bus(folder, tmp_path / "state", *options) as first, bus(folder, tmp_path / "state", *options) as second:
            first.wait_served("orders")
            second.wait_served("orders")
            leader, other = (first, second) if first.says('"leading"', "provisioner") else (second, first)
            assert leader.send("orders").status == 202
            wait_for(lambda: server.requests)
            leader.process.send_signal(signal.SIGTERM)
            for role in ("provisioner", "dispatcher"):
                wait_for(lambda role=role: other.says('"leading"', role), 3)  # type: ignore[misc]
            assert leader.process.poll() is None, "it still drains"
            hung.set()
            assert leader.stop() == 0
            assert given_up(leader) == 0
