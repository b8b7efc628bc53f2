"""Connections that send nothing, too many of them, and half requests."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from typing import Any

import pytest

from bus_core.data_plane.server import ASGIApp, Connections, Limits, bind, serve
from bus_core.model.errors import ConfigurationError
from tests.server.serving import Echo, connect, serving
from tests.support import request, wait_for


@pytest.mark.parametrize("data", [b"", b"POST / HT", b"POST / HTTP/1.1\r\nHost: a\r\nx: "])
def test_a_connection_without_a_request_head_is_closed_in_time(data: bytes) -> None:
    with serving(Limits(header_timeout=0.3), Echo()) as (address, _), connect(address, data) as sock:
        began = time.monotonic()
        answer = sock.recv(1000)
        assert 0.2 < time.monotonic() - began < 2
        if data:
            assert answer.startswith(b"HTTP/1.1 408 ")
            assert answer.endswith(b"\r\n\r\nthe head of the request took too long\n")
            answer = sock.recv(1000)
        assert answer == b""


def test_a_second_head_that_takes_too_long_is_answered_408() -> None:
    ask = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi"
    with serving(Limits(keepalive=0.3), Echo()) as (address, _), connect(address, ask) as sock:
        assert b"200" in sock.recv(1000)
        sock.sendall(ask[:20])
        assert sock.recv(1000).startswith(b"HTTP/1.1 408 ")
        assert sock.recv(1000) == b""


def test_a_body_that_takes_too_long_is_answered_408() -> None:
    ask = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nh"
    with serving(Limits(body_timeout=0.3), Echo()) as (address, service), connect(address, ask) as sock:
        began = time.monotonic()
        assert sock.recv(1000).startswith(b"HTTP/1.1 408 ")
        assert sock.recv(1000) == b""
        assert 0.2 < time.monotonic() - began < 2
        assert service.bodies == []


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


class TwoDoors:
    """Two applications, one for each listening socket."""

    def __init__(self, first: tuple[str, int], second: tuple[str, int]) -> None:
        self._names = {first: "first", second: "second"}

    def app_at(self, address: tuple[str, int]) -> ASGIApp:
        return Named(self._names[address])

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Nothing to start."""

    async def stop(self, connections: Connections) -> None:
        connections.close_idle()


class Named:
    """Answers with its name."""

    def __init__(self, name: str) -> None:
        self._name = name

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": self._name.encode()})


@pytest.mark.parametrize("other", ["127.0.0.1", "127.0.0.2"])
def test_ports_are_told_apart_by_the_socket(other: str) -> None:
    """Also where both have one number, on two addresses; and a forged Host does not lead from one to the other."""
    with bind("127.0.0.1:0") as first:
        port = first.getsockname()[1]
        try:
            second = bind(f"{other}:{port if other != '127.0.0.1' else 0}")
        except ConfigurationError:
            pytest.skip(f"this machine has no address {other}")
        with second:
            service, stop = TwoDoors(first.getsockname()[:2], second.getsockname()[:2]), threading.Event()
            thread = threading.Thread(target=serve, args=(service, [first, second], stop))
            thread.start()
            try:
                one, two = (f"{sock.getsockname()[0]}:{sock.getsockname()[1]}" for sock in (first, second))
                assert [request(at, host=two).text for at in (one, two, one)] == ["first", "second", "first"]
            finally:
                stop.set()
                thread.join(10)


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
