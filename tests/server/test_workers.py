"""serve_workers: processes that stop in order, are replaced when they die, and say once why they cannot start."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import ROOT, children, free_port, raw, request, wait_for

PROGRAM = '''
"""A service that answers slowly, for tests of the server around it."""
import asyncio, os, signal, sys, threading, time
from bus_core.model.errors import ConfigurationError
from bus_core.data_plane.server import Limits, bind, serve_workers


class Slow:
    stopping = False

    def start(self, loop):
        if "broken" in sys.argv:
            raise ConfigurationError("the cure is this")
        if "faulty" in sys.argv:
            raise RuntimeError("a fault")

    async def stop(self, connections):
        Slow.stopping = True
        connections.close_idle()
        await asyncio.sleep(0.5)

    def app_at(self, address):
        return self.answer

    async def answer(self, scope, receive, send):
        await receive()
        text = f"{os.getpid()} {Slow.stopping}"
        if scope["path"] == "/slow":
            await asyncio.sleep(0.4)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": text.encode()})


def gone(pid):
    print("gone", pid, flush=True)


if "late" in sys.argv:  # a worker needs a while until it has signal handlers of its own
    os.register_at_fork(after_in_child=lambda: time.sleep(1))


limits = Limits(graceful_timeout=5)
sys.exit(serve_workers(Slow, [bind(sys.argv[1])], workers=2, limits=limits, on_worker_exit=gone))
'''


@contextlib.contextmanager
def served(tmp_path: Path, *arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    (tmp_path / "program.py").write_text(PROGRAM)
    address = f"127.0.0.1:{free_port()}"
    process = subprocess.Popen(
        [sys.executable, str(tmp_path / "program.py"), address, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    try:
        yield process, address
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait(10)


def answered_by(address: str) -> int:
    with contextlib.suppress(OSError):
        return int(request(address, "GET", body=None).text.split()[0])
    return 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_answers_what_was_begun_and_half_a_request_does_not_hold_it_up(number: int, tmp_path: Path) -> None:
    with served(tmp_path) as (process, address):
        wait_for(lambda: answered_by(address))
        host, _, port = address.rpartition(":")
        half = socket.create_connection((host, int(port)))
        half.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc")
        slow = socket.create_connection((host, int(port)))
        slow.sendall(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")
        wait_for(lambda: answered_by(address))  # both have been accepted before this one was
        began = time.monotonic()
        process.send_signal(number)
        wait_for(lambda: b"True" in raw(address, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"), 2, "it answers while it stops")
        assert b"200" in slow.recv(1000)
        assert process.wait(5) == 0
        assert time.monotonic() - began < 3
        half.close()
        slow.close()


def test_a_stop_that_comes_while_workers_begin_is_not_forgotten(tmp_path: Path) -> None:
    with served(tmp_path, "late") as (process, _):
        wait_for(lambda: len(children(process.pid)) == 2)
        process.terminate()
        assert process.wait(5) == 0, "they were not killed, after six seconds"


def test_a_worker_that_dies_is_replaced(tmp_path: Path) -> None:
    with served(tmp_path) as (process, address):
        victim = wait_for(lambda: answered_by(address))
        os.kill(victim, signal.SIGKILL)
        seen: set[int] = set()

        def both() -> bool:
            seen.add(answered_by(address))
            return len(seen - {0, victim}) == 2

        wait_for(both, 3, "two other workers serve")
        assert process.stdout is not None
        assert process.stdout.readline() == f"gone {victim}\n"
        process.terminate()
        assert process.wait(5) == 0


def test_a_users_mistake_at_the_start_ends_it_with_one_sentence(tmp_path: Path) -> None:
    with served(tmp_path, "broken") as (process, _):
        _, errors = process.communicate(timeout=10)
    assert process.returncode == 2
    assert errors.count("the cure is this") in (1, 2), "once a worker, and no boot loop"
    assert "Traceback" not in errors


def test_a_fault_at_the_start_ends_it_too(tmp_path: Path) -> None:
    with served(tmp_path, "faulty") as (process, _):
        _, errors = process.communicate(timeout=10)
    assert process.returncode == 1
    assert "RuntimeError: a fault" in errors
