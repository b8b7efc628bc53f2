"""A port that nobody listens on, in the API server's place: one host's connections and log lines, counted."""

from __future__ import annotations

import logging
import socket
import threading
import time
from pathlib import Path

import pytest

from bus_core.control_plane.cluster import ApiError
from bus_core.control_plane.cluster.access import connect, shared_client
from bus_core.control_plane.leadership.lease import LeaseLock
from bus_core.control_plane.sources.kubernetes import KubernetesSource
from bus_core.model.references import BusReference
from bus_core.model.resources import DISPATCHER, PROVISIONER, Bus, Metadata
from tests.cluster.api_double import ApiDouble, kubeconfig
from tests.support import free_port, wait_for

SECONDS = 6.0
BUS = BusReference("demo", "default")


def test_a_closed_port_sees_one_connection_a_step_whoever_calls(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Four reflectors, the Leases of two roles, and the writer of Events, as in one worker."""
    attempts: list[float] = []
    begin = socket.socket.connect

    def counted(sock: socket.socket, address: object) -> None:
        attempts.append(time.monotonic())
        begin(sock, address)  # type: ignore[arg-type]

    monkeypatch.setattr(socket.socket, "connect", counted)
    client, stop = connect(f"http://127.0.0.1:{free_port()}"), threading.Event()
    source, lease = KubernetesSource(client, BUS), LeaseLock(client, "default")
    thread = threading.Thread(target=source.run, args=(print, stop))
    with caplog.at_level(logging.INFO):
        thread.start()
        lease.start(BUS, (PROVISIONER, DISPATCHER), print)
        for number in range(30):
            source.record_event(Bus(Metadata("demo", uid="u")), "Synced", f"event {number}")
            threading.Event().wait(SECONDS / 30)  # the length of the look
    stop.set()
    lease.release()
    thread.join()
    # The first ones may start at the same moment, before any of them has failed.
    later = [at for at in attempts if at > attempts[0] + 0.5]
    assert len(later) <= SECONDS + 1
    warned = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert warned == ["the API server cannot be reached"]
    assert "refused" in source.problems()[0]
    assert "refused" in lease.problems()[0]


def test_all_callers_are_back_soon_after_the_server() -> None:
    port = free_port()
    client, stop = connect(f"http://127.0.0.1:{port}"), threading.Event()
    source = KubernetesSource(client, BUS)
    thread = threading.Thread(target=source.run, args=(print, stop))
    thread.start()
    wait_for(source.problems)
    server = ApiDouble("", port=port)
    try:
        wait_for(source.synced.is_set, 5)
        wait_for(lambda: not source.problems(), 5)
    finally:
        stop.set()
        thread.join()
        server.close()


def test_a_refused_call_says_when_to_come_back_and_others_learn_of_it() -> None:
    client = connect(f"http://127.0.0.1:{free_port()}")
    for _ in range(3):
        with pytest.raises(ApiError, match="refused") as caught:
            client.get("/things")
        assert caught.value.unreachable
        assert 0 < caught.value.retry_after <= 1.1


def test_a_server_that_closes_each_connection_counts_as_unreachable() -> None:
    """A load balancer without a server behind it."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        client = connect(f"http://127.0.0.1:{listener.getsockname()[1]}")

        def close_one() -> None:
            listener.accept()[0].close()

        closer = threading.Thread(target=close_one)
        closer.start()
        for _ in range(2):
            with pytest.raises(ApiError) as caught:
                client.get("/things")
            assert caught.value.unreachable
        closer.join(5)
        assert not closer.is_alive()


def test_one_process_has_one_client_for_a_cluster(tmp_path: Path) -> None:
    one = kubeconfig(tmp_path / "one", "http://127.0.0.1:1", token="t")
    two = kubeconfig(tmp_path / "two", "http://127.0.0.1:1", token="t")
    assert shared_client("", str(one)) is shared_client("", str(one))
    assert shared_client("", str(one)) is not shared_client("", str(two))
