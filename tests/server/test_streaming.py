"""Answers in pieces, HTTP/1.0, HEAD, Expect, and bodies that are read piece by piece."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from typing import Any

import pytest

from bus_core.data_plane.server import Limits
from tests.server.serving import connect, serving
from tests.server.test_exchange import ASK, Application, read_to_the_end
from tests.support import raw, wait_for


def answering(*pieces: bytes, headers: list[tuple[bytes, bytes]] | None = None, status: int = 200) -> Application:
    """Answers with these pieces."""

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "http.response.start", "status": status, "headers": headers or []})
        for number, piece in enumerate(pieces, 1):
            await send({"type": "http.response.body", "body": piece, "more_body": number < len(pieces)})

    return Application(application)


def test_an_answer_in_pieces_is_chunked_and_the_connection_goes_on() -> None:
    with serving(Limits(), answering(b"ab", b"", b"c" * 20, b"")) as (address, _), connect(address) as sock:
        for _ in range(2):
            sock.sendall(ASK)
            found = b""
            while not found.endswith(b"0\r\n\r\n"):
                found += sock.recv(1000)
            head, _, body = found.partition(b"\r\n\r\n")
            assert b"transfer-encoding: chunked" in head
            assert b"content-length" not in head
            assert body == b"2\r\nab\r\n14\r\n" + b"c" * 20 + b"\r\n0\r\n\r\n"


def test_an_answer_in_pieces_with_a_length_is_sent_as_it_is() -> None:
    with serving(Limits(), answering(b"ab", b"c", headers=[(b"content-length", b"3")])) as (address, _):
        head, _, body = raw(address, ASK).partition(b"\r\n\r\n")
    assert b"chunked" not in head
    assert head.count(b"content-length: 3") == 1
    assert body == b"abc"


@pytest.mark.parametrize("pieces", [(b"abcd",), (b"ab", b"cd"), (b"a", b"")])
def test_an_answer_that_is_not_as_long_as_it_says_never_looks_whole(pieces: tuple[bytes, ...]) -> None:
    with serving(Limits(), answering(*pieces, headers=[(b"content-length", b"3")])) as (address, _):
        with connect(address, ASK) as sock, contextlib.suppress(ConnectionResetError):
            answer = read_to_the_end(sock)
            head, _, body = answer.partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 500 ") or len(body) < 3


@pytest.mark.parametrize("pieces", [(b"abc",), (b"ab", b"c")])
def test_http_1_0_gets_no_chunks_and_its_connection_closes_unless_it_asks(pieces: tuple[bytes, ...]) -> None:
    ask = b"GET / HTTP/1.0\r\nHost: a\r\n%s\r\n"
    with serving(Limits(), answering(*pieces)) as (address, _):
        with connect(address, ask % b"") as sock:
            head, _, body = read_to_the_end(sock).partition(b"\r\n\r\n")
            assert b"chunked" not in head
            assert b"connection: close" in head
            assert body == b"abc"
        with connect(address, ask % b"Connection: keep-alive\r\n") as sock:
            answer = sock.recv(1000) if len(pieces) == 1 else read_to_the_end(sock)
            head, _, body = answer.partition(b"\r\n\r\n")
            # Without a length only the end of the connection ends the answer.
            assert (b"connection: keep-alive" if len(pieces) == 1 else b"connection: close") in head
            assert body == b"abc"


@pytest.mark.parametrize("pieces", [(b"abc",), (b"ab", b"c")])
def test_head_gets_the_head_alone(pieces: tuple[bytes, ...]) -> None:
    ask = b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n"
    with serving(Limits(), answering(*pieces)) as (address, _), connect(address, ask) as sock:
        assert sock.recv(1000).endswith(b"\r\n\r\n")
        sock.sendall(ask.replace(b"Host", b"Connection: close\r\nHost"))
        answer = read_to_the_end(sock)
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert answer.endswith(b"\r\n\r\n")


def test_continue_is_sent_once_and_only_when_the_application_asks_for_the_body() -> None:
    ask = b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n"
    with serving(Limits(), answering(b"abc")) as (address, _), connect(address, ask) as sock:
        assert sock.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
        sock.sendall(b"hi")
        assert sock.recv(1000).startswith(b"HTTP/1.1 200 ")

    async def refuse(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 413, "headers": []})
        await send({"type": "http.response.body", "body": b"no"})

    with serving(Limits(), Application(refuse)) as (address, _), connect(address, ask) as sock:
        assert read_to_the_end(sock).startswith(b"HTTP/1.1 413 ")


def test_an_early_answer_reaches_a_sender_that_goes_on_sending_its_body() -> None:
    async def refuse(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 413, "headers": []})
        await send({"type": "http.response.body", "body": b"no"})

    ask = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3000000\r\n\r\n"
    with serving(Limits(), Application(refuse)) as (address, _):
        for _ in range(5):
            with connect(address, ask) as sock:
                sock.sendall(b"x" * 3_000_000)
                answer = read_to_the_end(sock)
                assert answer.startswith(b"HTTP/1.1 413 ")
                assert b"connection: close" in answer


def test_a_body_is_read_no_faster_than_its_application_takes_it() -> None:
    go = threading.Event()
    sizes: list[int] = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        while not go.is_set():
            await asyncio.sleep(0.01)
        more = True
        while more:
            event = await receive()
            sizes.append(len(event["body"]))
            more = event["more_body"]
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    size = 32 << 20
    with serving(Limits(), Application(application)) as (address, _):
        with connect(address, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % size) as sock:
            sock.settimeout(0.5)
            sent = 0
            with contextlib.suppress(TimeoutError):
                while sent < size:
                    sent += sock.send(b"x" * min(1 << 20, size - sent))
            assert sent < size, "the kernel's buffers, and a little more"
            go.set()
            sock.settimeout(10)
            sock.sendall(b"x" * (size - sent))
            assert sock.recv(1000).startswith(b"HTTP/1.1 200 ")
    assert sum(sizes) == size
    assert max(sizes) < 1 << 20


def test_a_streamed_answer_waits_for_a_slow_reader() -> None:
    written: list[int] = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for number in range(100):
            await send({"type": "http.response.body", "body": b"x" * (1 << 20), "more_body": number < 99})
            written.append(number)

    with serving(Limits(), Application(application)) as (address, _), connect(address, ASK) as sock:
        wait_for(lambda: written)
        with contextlib.suppress(AssertionError):
            wait_for(lambda: len(written) > 50, 0.5)
        assert len(written) <= 50, "the kernel's buffers are full, and the application waits"
        found = 0
        while found < 100 << 20:
            found += sock.recv(1 << 20).count(b"x")


def test_a_slow_reader_that_leaves_ends_a_streamed_answer() -> None:
    ended = threading.Event()

    async def application(scope: Any, receive: Any, send: Any) -> None:
        try:
            await receive()
            await send({"type": "http.response.start", "status": 200, "headers": []})
            for _ in range(100):
                await send({"type": "http.response.body", "body": b"x" * (1 << 20), "more_body": True})
        finally:
            ended.set()

    with serving(Limits(), Application(application)) as (address, _):
        with connect(address, ASK) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
            assert sock.recv(100)
        assert ended.wait(5)
