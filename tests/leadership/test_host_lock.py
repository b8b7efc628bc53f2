"""The host lock: one of a host's workers competes, in the host's name, and another one when it dies."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from bus_core.control_plane.cluster.access import connect
from bus_core.control_plane.leadership.host_lock import HostLock
from bus_core.control_plane.leadership.lease import HOST_POLL, LeaseLock
from bus_core.model.references import BusReference
from tests.support import wait_for

BUS = BusReference("demo", "shop")
DURATION = 2


class LeaseServer:
    """Leases as an API server keeps them, on a real port, with a count of what was asked."""

    def __init__(self) -> None:
        self.leases: dict[str, dict[str, Any]] = {}
        self.asked: list[tuple[float, str, str]] = []
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def holder(self, role: str = "provisioner") -> str:
        lease = self.leases.get(f"bus-demo-{role}") or {}
        return str((lease.get("spec") or {}).get("holderIdentity") or "")

    def answer(self, method: str, name: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        with self._lock:
            self.asked.append((time.monotonic(), method, name))
            known = self.leases.get(name)
            if method == "GET":
                return (200, known) if known else (404, {"reason": "NotFound"})
            name = body["metadata"]["name"]
            known = self.leases.get(name)
            version = known["metadata"]["resourceVersion"] if known else ""
            if body["metadata"].get("resourceVersion", "") != version:
                return 409, {"reason": "Conflict"}
            body["metadata"]["resourceVersion"] = str(int(version or 0) + 1)
            self.leases[name] = body
            return 200, body

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        owner = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                sent = self.rfile.read(int(self.headers.get("content-length") or 0))
                name = self.path.rpartition("/")[2]
                status, found = owner.answer(self.command, name, json.loads(sent) if sent else {})
                body = json.dumps(found).encode()
                self.send_response(status)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_POST = do_PUT = do_GET

            def log_message(self, *_: Any) -> None:
                """A test's output is for what failed."""

        return Handler


class Worker:
    """A forked process that competes; the pipe tells the moment of each gain."""

    def __init__(self, server: LeaseServer, host: HostLock) -> None:
        self._read, write = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            try:
                _compete(server.url, host, write)
            finally:
                os._exit(0)
        os.close(write)
        self.gained: list[str] = []
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.pid, 0)

    def _listen(self) -> None:
        with os.fdopen(self._read) as lines:
            for line in lines:
                self.gained.append(line.strip())


def _compete(url: str, host: HostLock, write: int) -> None:
    def gained(role: str) -> None:
        os.write(write, f"{role}\n".encode())

    lock = LeaseLock(connect(url), "shop", duration=DURATION, host=host)
    lock.start(BUS, ["provisioner", "dispatcher"], gained)
    signal.pause()


@pytest.fixture
def server() -> Iterator[LeaseServer]:
    made = LeaseServer()
    yield made
    made.close()


@pytest.fixture
def start(server: LeaseServer) -> Iterator[Callable[[HostLock], Worker]]:
    workers: list[Worker] = []

    def begin(host: HostLock) -> Worker:
        workers.append(Worker(server, host))
        return workers[-1]

    yield begin
    for worker in workers:
        worker.kill()


def _leader(workers: list[Worker]) -> Worker:
    """The worker that leads both roles, as soon as there is one."""
    wait_for(lambda: any(len(worker.gained) == 2 for worker in workers), what="a worker leads")
    return next(worker for worker in workers if len(worker.gained) == 2)


def test_another_worker_of_the_host_leads_at_once_when_the_leader_dies(
    server: LeaseServer, start: Callable[[HostLock], Worker]
) -> None:
    host, other = HostLock(), HostLock()
    workers = [start(host) for _ in range(3)]
    leader = _leader(workers)
    rival = start(other)
    wait_for(lambda: len([name for _, _, name in server.asked if name.startswith("bus-demo")]) > 4)
    assert server.holder() == host.identity
    began = time.monotonic()
    leader.kill()
    rest = [worker for worker in workers if worker is not leader]
    _leader(rest)
    took = time.monotonic() - began
    assert took < HOST_POLL + 0.5, f"{took:.2f} s: long before the Lease is over"
    assert server.holder() == host.identity
    assert server.leases["bus-demo-provisioner"]["spec"]["leaseTransitions"] == 1
    assert rival.gained == []


def test_a_stopped_worker_keeps_its_host_out_and_another_host_leads(
    server: LeaseServer, start: Callable[[HostLock], Worker]
) -> None:
    host, other = HostLock(), HostLock()
    workers = [start(host) for _ in range(2)]
    leader = _leader(workers)
    rival = start(other)
    os.kill(leader.pid, signal.SIGSTOP)
    wait_for(lambda: len(rival.gained) == 2, 3 * DURATION, "another host leads")
    assert server.holder() == other.identity
    assert [len(worker.gained) for worker in workers if worker is not leader] == [0]


def test_idle_workers_ask_for_two_leases_a_step_and_host(
    server: LeaseServer, start: Callable[[HostLock], Worker]
) -> None:
    host, other = HostLock(), HostLock()
    workers = [start(host) for _ in range(4)]
    _leader(workers)
    for _ in range(4):
        start(other)
    step = 0.1 * DURATION
    threading.Event().wait(5 * step)  # until all have begun
    since = time.monotonic()
    threading.Event().wait(10 * step)  # the length of the look
    asked = [method for at, method, _ in list(server.asked) if at >= since]
    assert asked.count("GET") <= 2 * 11, "the host that waits reads, once for both roles"
    assert asked.count("PUT") <= 2 * 11, "the host that leads renews"
