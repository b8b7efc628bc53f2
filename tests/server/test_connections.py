"""Connections that send nothing, too many of them, and half requests."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from typing import Any

import pytest

from bus_core.data_plane.server import Limits, bind, by_port
from bus_core.model.errors import ConfigurationError
from tests.server.serving import Echo, connect, serving
from tests.support import raw, request, wait_for


@pytest.mark.parametrize("data", [b"", b"POST / HT", b"POST / HTTP/1.1\r\nHost: a\r\nx: "])
def test_a_connection_without_a_request_head_is_closed_in_time(data: bytes) -> None:
    with serving(Limits(header_timeout=0.3), Echo()) as (address, _), connect(address, data) as sock:
        began = time.monotonic()
        with contextlib.suppress(ConnectionResetError):
            assert sock.recv(100) == b""
        assert 0.2 < time.monotonic() - began < 2


def test_a_connection_without_another_request_is_closed_in_time() -> None:
    ask = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi"
    with (
        serving(Limits(keepalive=1), Echo()) as (address, service),
        connect(address, ask) as idle,
        connect(address, ask) as busy,
    ):
        assert b"200" in idle.recv(1000)
        began = time.monotonic()
        idle.setblocking(False)
        closed = False
        while not closed and time.monotonic() - began < 5:
            busy.sendall(ask)
            assert busy.recv(1000), "one that goes on asking stays"
            with contextlib.suppress(BlockingIOError):
                closed = idle.recv(1000) == b""
        assert 0.9 < time.monotonic() - began < 3
        assert len(service.bodies) > 2


def test_a_sender_that_pipelines_has_not_the_loop_to_itself() -> None:
    served_at_turn: list[int] = []
    with serving(Limits(), Echo()) as (address, service):

        def turn() -> None:
            served_at_turn.append(len(service.bodies))
            if len(served_at_turn) < 20:
                asyncio.get_running_loop().call_soon(turn)

        service.first = turn
        ask = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi"
        with connect(address, ask * 100):
            wait_for(lambda: len(service.bodies) == 100)
    assert served_at_turn[0] <= 2
    assert served_at_turn[-1] <= 21


def test_what_is_pipelined_behind_a_request_is_bounded() -> None:
    """A sender that does not wait for its answer is not read any further."""
    with serving(Limits(), Echo()) as (address, service):
        service.hold = threading.Event()
        with connect(address, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi") as sock:
            sock.settimeout(0.5)
            sent = 0
            with contextlib.suppress(TimeoutError):
                while sent < 64 << 20:
                    sent += sock.send(b"x" * (1 << 20))
            assert sent < 32 << 20, "the kernel's buffers, and 256 KiB"
            service.hold.set()


def test_slow_connections_do_not_starve_a_fast_one() -> None:
    with serving(Limits(), Echo()) as (address, _):
        slow = [connect(address, b"POST / HTTP/1.1\r\nHost: a\r\n") for _ in range(60)]
        began = time.monotonic()
        for _ in range(10):
            assert request(address, body=b"fast").text == "fast"
        assert time.monotonic() - began < 2
        for sock in slow:
            sock.close()


def test_connections_beyond_the_limit_are_closed_and_room_is_found_again() -> None:
    with serving(Limits(max_connections=3), Echo()) as (address, _):
        held = [connect(address) for _ in range(3)]
        wait_for(lambda: not answers(address), what="the limit is reached")
        held.pop().close()
        wait_for(lambda: answers(address), what="room again")
        for sock in held:
            sock.close()


def answers(address: str) -> bool:
    try:
        return b"200" in raw(address, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", timeout=1)
    except OSError:
        return False


def test_a_stop_closes_idle_and_half_open_connections_at_once() -> None:
    with serving(Limits(), Echo()) as (address, service):
        idle = connect(address, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi")
        assert b"200" in idle.recv(1000)
        half = connect(address, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nh")
        assert request(address, body=b"x").text == "x"
    # leaving the block stopped it, within the join's time
    assert service.stopped.is_set()
    assert service.bodies == [b"hi", b"x"]
    for sock in (idle, half):
        with contextlib.suppress(ConnectionResetError):
            assert sock.recv(1000) == b""
        sock.close()


def test_ports_are_told_apart_by_the_socket() -> None:

    asked: list[str] = []

    def make(name: str) -> Any:
        async def one(scope: Any, receive: Any, send: Any) -> None:
            asked.append(name)

        return one

    both = by_port({1: make("one"), 2: make("two")})
    headers = [(b"host", b"x:1")]
    asyncio.run(_call(both, {"server": ("127.0.0.1", 2), "headers": headers}))
    assert asked == ["two"]


async def _call(app: Any, scope: Any) -> None:
    await app(scope, None, None)


@pytest.mark.parametrize("address", ["", "8080", "host", "127.0.0.1:", "127.0.0.1:http", "127.0.0.1:99999", ":80"])
def test_an_address_that_is_none_is_refused(address: str) -> None:
    with pytest.raises(ConfigurationError, match="HOST:PORT"):
        bind(address)


def test_ipv6_works_where_the_machine_has_it() -> None:
    if not socket.has_ipv6:
        pytest.skip("this machine has no IPv6")
    try:
        listener = bind("[::1]:0")
    except ConfigurationError:
        pytest.skip("this machine has no IPv6 loopback")
    listener.close()
