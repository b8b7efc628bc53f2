"""MessageReceiver in library use: any thread, def and async def, in an application of somebody else's."""

from __future__ import annotations

import asyncio
import concurrent.futures
import functools
import logging
import socket
import threading
import time
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from bus_core import (
    BusyError,
    ChannelReference,
    InvalidMessageError,
    Message,
    MessageReceiver,
    MessageTooLargeError,
    PermanentError,
    TemporaryError,
    UnknownChannelError,
)
from tests.support import raw, request, wait_for


@contextmanager
def receiving(function: Any, **options: Any) -> Iterator[MessageReceiver]:
    receiver, stop = MessageReceiver(function, bind="127.0.0.1:0", **options), threading.Event()
    thread = threading.Thread(target=receiver.run, args=(stop,))
    thread.start()
    try:
        assert receiver.listening.wait(5)
        yield receiver
    finally:
        stop.set()
        thread.join(10)
        assert not thread.is_alive()


def address(receiver: MessageReceiver) -> str:
    assert receiver.address is not None
    return receiver.address


def test_it_shares_the_callers_memory_and_calls_a_def_on_a_thread() -> None:
    got: list[tuple[ChannelReference, Message, str]] = []

    def take(channel: ChannelReference, message: Message) -> None:
        got.append((channel, message, threading.current_thread().name))

    with receiving(take) as receiver:
        assert request(address(receiver), host="orders.shop", body=b"hi", ce_id="1").status == 202
    (channel, message, thread) = got[0]
    assert channel == ChannelReference("orders", "shop")
    assert (dict(message.headers), message.payload) == ({"ce-id": "1"}, b"hi")
    assert thread.startswith("receive")


def test_an_async_def_that_a_plain_function_wraps_is_awaited_all_the_same() -> None:
    got: list[bytes] = []

    async def take(channel: ChannelReference, message: Message) -> None:
        await asyncio.sleep(0)
        got.append(message.payload)

    @functools.wraps(take)
    def traced(channel: ChannelReference, message: Message) -> Awaitable[None]:
        return take(channel, message)

    with receiving(traced) as receiver:
        assert request(address(receiver), host="orders.shop", body=b"hi").status == 202
    assert got == [b"hi"]


def test_an_async_def_is_awaited_on_the_loop_and_calls_run_side_by_side() -> None:
    both = asyncio.Barrier(2)

    async def take(channel: ChannelReference, message: Message) -> None:
        await both.wait()

    with receiving(take) as receiver:
        statuses: list[int] = []
        threads = [
            threading.Thread(target=lambda: statuses.append(request(address(receiver), host="a.b").status))
            for _ in range(2)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(5)
        assert statuses == [202, 202]


ANSWERS = [
    (UnknownChannelError("no channel of that name"), 404, "no channel of that name"),
    (InvalidMessageError("that is no event"), 400, "that is no event"),
    (MessageTooLargeError("the topic takes less"), 413, "the topic takes less"),
    (TemporaryError("the broker is away", 2.2), 503, "the broker is away"),
    (BusyError("full"), 503, "full"),
    (PermanentError("for the log alone"), 500, "its log says why"),
    (RuntimeError("for the log alone"), 500, "its log says why"),
    (TimeoutError("for the log alone"), 500, "its log says why"),
    (UnknownChannelError(), 404, "there is no such channel"),
    (asyncio.CancelledError(), 503, "given up"),
    (concurrent.futures.CancelledError(), 503, "given up"),
]


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize(("error", "status", "says"), ANSWERS, ids=lambda value: type(value).__name__)
def test_what_the_function_raises_is_the_answer(
    error: BaseException, status: int, says: str, asynchronous: bool, caplog: pytest.LogCaptureFixture
) -> None:
    def plain(channel: ChannelReference, message: Message) -> None:
        raise error

    async def awaited(channel: ChannelReference, message: Message) -> None:
        raise error

    with caplog.at_level(logging.ERROR), receiving(awaited if asynchronous else plain) as receiver:
        answer = request(address(receiver), host="a.b")
    assert answer.status == status
    assert says in answer.text
    assert "Traceback" not in answer.text
    assert "for the log alone" not in answer.text
    if status == 503:
        assert answer.headers["retry-after"] == ("3" if "away" in says else "1")
    logged = [record for record in caplog.records if record.exc_info]
    assert len(logged) == (1 if status == 500 else 0)
    assert all(vars(record)["channel"] == "b/a" for record in logged)


TARGETS = [
    (b"POST http://orders.shop/ HTTP/1.1", 202, ""),
    (b"POST HTTP://orders.shop HTTP/1.1", 202, ""),
    (b"POST http://orders.shop/elsewhere HTTP/1.1", 404, "received on / only"),
    (b"POST http://127.0.0.1:8080/ HTTP/1.1", 400, "does not name a channel"),
    (b"POST http:/// HTTP/1.1", 400, "Host"),
    (b"OPTIONS * HTTP/1.1", 404, "received on / only"),
    (b"CONNECT orders.shop:80 HTTP/1.1", 404, "received on / only"),
    (b"GET / HTTP/1.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13", 405, "POST"),
    (b"HEAD / HTTP/1.1\r\nConnection: close", 405, None),
]


@pytest.mark.parametrize(("line", "status", "says"), TARGETS, ids=[line.decode()[:30] for line, _, _ in TARGETS])
def test_other_forms_of_a_target(line: bytes, status: int, says: str | None, caplog: pytest.LogCaptureFixture) -> None:
    """RFC 9112, section 3.2: the authority of an absolute target counts, not the Host header."""
    channels: list[str] = []
    with receiving(lambda channel, message: channels.append(str(channel))) as receiver:
        answer = raw(address(receiver), line + b"\r\nHost: other.shop\r\nContent-Length: 0\r\n\r\n")
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status)
    assert body == b"" if says is None else says in body.decode()
    assert channels == (["shop/orders"] if status == 202 else [])
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.mark.parametrize(
    "part",
    [
        b"Content-Length: 10\r\n\r\nabc",
        b"Content-Length: 10\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n3\r\nab",
    ],
)
def test_a_body_cut_short_never_reaches_the_function(part: bytes) -> None:
    got: list[bytes] = []
    with receiving(lambda channel, message: got.append(message.payload)) as receiver:
        host, _, port = address(receiver).rpartition(":")
        for _ in range(3):
            with socket.create_connection((host, int(port))) as sock:
                sock.sendall(b"POST / HTTP/1.1\r\nHost: a.b\r\n" + part)
        assert request(address(receiver), host="a.b", body=b"whole").status == 202
        chunked = b"POST / HTTP/1.1\r\nHost: a.b\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nch\r\n4\r\nunks\r\n0\r\n\r\n"
        assert b"202" in raw(address(receiver), chunked)
    assert got == [b"whole", b"chunks"]


def test_a_drip_fed_body_is_ended() -> None:
    got: list[bytes] = []
    with receiving(lambda channel, message: got.append(message.payload), body_timeout=0.4) as receiver:
        host, _, port = address(receiver).rpartition(":")
        with socket.create_connection((host, int(port)), timeout=0.05) as sock:
            sock.sendall(b"POST / HTTP/1.1\r\nHost: a.b\r\nContent-Length: 1000\r\n\r\n")
            began = time.monotonic()
            answer: bytes | None = None
            while answer is None and time.monotonic() - began < 5:
                try:
                    sock.sendall(b"x")
                    answer = sock.recv(1000)
                except TimeoutError:
                    continue
                except OSError:
                    answer = b""  # a byte that crosses the close resets the connection, and takes the answer along
            assert 0.3 < time.monotonic() - began < 3
            assert answer is not None
            assert answer == b"" or answer.startswith(b"HTTP/1.1 408")
    assert got == []


def test_many_events_on_one_connection_keep_their_bodies() -> None:
    got: list[bytes] = []

    async def take(channel: ChannelReference, message: Message) -> None:
        got.append(message.payload)

    bodies = [bytes([n % 256]) * (n * 37 % 5000) for n in range(200)]
    with receiving(take) as receiver:
        host, _, port = address(receiver).rpartition(":")
        with socket.create_connection((host, int(port)), timeout=10) as sock:
            sock.sendall(
                b"".join(
                    b"POST / HTTP/1.1\r\nHost: a.b\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
                    for body in bodies
                )
            )
            wait_for(lambda: len(got) == len(bodies))
    assert got == bodies


def test_refuse_and_drained_let_what_was_begun_end() -> None:
    go, inside = threading.Event(), threading.Event()

    def take(channel: ChannelReference, message: Message) -> None:
        if not inside.is_set():
            inside.set()
            assert go.wait(5)

    receiver, stop = MessageReceiver(take, bind="127.0.0.1:0"), threading.Event()
    thread = threading.Thread(target=receiver.run, args=(stop,))
    thread.start()
    assert receiver.listening.wait(5)
    statuses: list[int] = []
    sender = threading.Thread(target=lambda: statuses.append(request(address(receiver), host="a.b").status))
    sender.start()
    assert inside.wait(5)
    stop.set()

    def refuses() -> bool:
        try:
            return request(address(receiver), host="a.b").status == 503
        except OSError:
            return False  # it was among those that are closed as the stop begins

    wait_for(refuses)
    go.set()
    sender.join(5)
    thread.join(5)
    assert statuses == [202]


def test_a_second_run_of_one_receiver_works_like_the_first() -> None:
    threads: list[str] = []
    receiver = MessageReceiver(
        lambda channel, message: threads.append(threading.current_thread().name), bind="127.0.0.1:0"
    )
    for _ in range(3):
        stop = threading.Event()
        thread = threading.Thread(target=MessageReceiver.run, args=(receiver, stop))
        thread.start()
        try:
            assert receiver.listening.wait(5)
            assert request(address(receiver), host="a.b").status == 202
        finally:
            stop.set()
            thread.join(10)
            assert not thread.is_alive()
    assert len(threads) == 3
    assert all(name.startswith("receive") for name in threads)
