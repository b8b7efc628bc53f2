"""One request on a connection: what the application receives, what the sender is answered, and how both may end."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import re
import socket
import threading
from typing import Any

import pytest

from bus_core.data_plane.server import ASGIApp, Connections, Limits
from bus_core.data_plane.server.connection import Connection
from tests.server.serving import Echo, connect, serving
from tests.support import wait_for

ASK = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi"


class Application:
    """Does what the test says, and hands over what it is told."""

    def __init__(self, application: Any) -> None:
        self._application = application

    def app_at(self, address: tuple[str, int]) -> ASGIApp:
        application: ASGIApp = self._application
        return application

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Nothing to start."""

    async def stop(self, connections: Connections) -> None:
        connections.close_idle()


def read_to_the_end(sock: socket.socket) -> bytes:
    found = b""
    while more := sock.recv(10_000):
        found += more
    return found


def without_date(answer: bytes) -> bytes:
    return re.sub(rb"date: [^\r]*\r\n", b"", answer)


@pytest.mark.parametrize("more", [b"", b"Connection: close\r\n", b"Connection: keep-alive\r\n"])
def test_a_request_in_one_piece_and_in_two_is_the_same_to_the_application_and_the_sender(more: bytes) -> None:
    ask = ASK.replace(b"Host:", more + b"Host:")
    scopes: list[dict[str, Any]] = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        scopes.append(scope)
        event = await receive()
        while event.get("more_body"):
            event = await receive()
        headers = [(b"content-length", b"4"), (b"x-a", b"b")]
        await send({"type": "http.response.start", "status": 202, "headers": headers})
        await send({"type": "http.response.body", "body": b"done"})

    with serving(Limits(), Application(application)) as (address, _):
        answers = []
        for pieces in ([ask], [ask[:30], ask[30:]]):
            with connect(address) as sock:
                for number, piece in enumerate(pieces):
                    sock.sendall(piece)
                    if number < len(pieces) - 1:
                        with contextlib.suppress(TimeoutError):  # so that it is read before the rest comes
                            sock.settimeout(0.1)
                            sock.recv(1)
                        sock.settimeout(5)
                answers.append(without_date(sock.recv(1000)))
                if b"close" in more:
                    assert sock.recv(1000) == b""
    quick, slow = answers
    assert quick == slow
    assert b"202 Accepted" in quick
    for scope in scopes:
        del scope["client"]
    assert scopes[0] == scopes[1]


def test_what_arrives_meanwhile_is_answered_after_it_and_in_order() -> None:
    with serving(Limits(), Echo()) as (address, service), connect(address, ASK) as sock:
        service.hold = threading.Event()
        wait_for(lambda: service.bodies == [b"hi"])
        for number in range(10):
            sock.sendall(ASK.replace(b"hi", b"%02d" % number))
        service.hold.set()
        found = b""
        while found.count(b"200 OK") < 11:
            found += sock.recv(10_000)
        wait_for(lambda: service.bodies == [b"hi", *(b"%02d" % number for number in range(10))])


def test_a_sender_that_leaves_is_told_to_the_application() -> None:
    told = threading.Event()

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        assert (await receive())["type"] == "http.disconnect"
        told.set()

    with serving(Limits(), Application(application)) as (address, _):
        with connect(address, ASK):
            assert not told.is_set()
        assert told.wait(5)


def test_what_goes_on_after_its_sender_has_left_is_ended() -> None:
    asked, ended = threading.Event(), threading.Event()

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        asked.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    with serving(Limits(), Application(application)) as (address, _):
        with connect(address, ASK):
            assert asked.wait(5)
            assert not ended.is_set()
        assert ended.wait(5)


def test_a_sender_that_does_not_read_its_answers_gets_no_more_of_them() -> None:
    taken: list[int] = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        taken.append(1)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"x" * 500_000})

    with serving(Limits(), Application(application)) as (address, _), connect(address) as sock:
        sent = 0
        while len(taken) == sent and sent < 100:  # one by one: what is pipelined goes gunicorn's way
            sock.sendall(ASK)
            sent += 1
            with contextlib.suppress(AssertionError):
                wait_for(lambda: len(taken) == sent, 2)  # noqa: B023
        assert len(taken) == sent - 1 < 99
        found = 0
        while found < sent * 500_000:
            found += sock.recv(1 << 20).count(b"x")
        assert len(taken) == sent


def test_an_empty_line_before_each_request_is_passed_over() -> None:
    with serving(Limits(), Echo()) as (address, _), connect(address) as sock:
        for number in range(3):
            sock.sendall(b"\r\n")
            with contextlib.suppress(TimeoutError):  # so that it is read alone
                sock.settimeout(0.05)
                assert sock.recv(1000) == b"", "it is not an answer"
            sock.settimeout(5)
            sock.sendall(ASK)
            assert b"200 OK" in sock.recv(1000), number


def test_an_answer_without_a_body_has_no_length() -> None:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "http.response.start", "status": 204, "headers": [(b"connection", b"close")]})
        await send({"type": "http.response.body", "body": b""})

    with serving(Limits(), Application(application)) as (address, _), connect(address, ASK) as sock:
        answer = read_to_the_end(sock)
        assert answer.startswith(b"HTTP/1.1 204")
        assert b"ength" not in answer
        assert answer.lower().count(b"connection: close") == 1


@pytest.mark.parametrize("fault", ["raises", "is cancelled", "answers nothing", "splits the answer", "answers twice"])
def test_an_application_that_fails_is_a_500_and_the_end_of_the_connection(fault: str) -> None:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        if fault == "raises":
            raise RuntimeError("a fault")
        if fault == "is cancelled":
            raise asyncio.CancelledError
        if fault == "splits the answer":
            await send({"type": "http.response.start", "status": 200, "headers": [(b"a", b"b\r\nc: d")]})
            await send({"type": "http.response.body", "body": b""})
        if fault == "answers twice":
            for _ in range(2):
                await send({"type": "http.response.start", "status": 200, "headers": []})
                await send({"type": "http.response.body", "body": b""})

    with serving(Limits(), Application(application)) as (address, _), connect(address, ASK) as sock:
        answer = read_to_the_end(sock)
        assert answer.startswith(b"HTTP/1.1 200" if fault == "answers twice" else b"HTTP/1.1 500")
        assert answer.count(b"HTTP/1.1") == 1


def test_a_stop_lets_it_end_and_closes_its_connection() -> None:
    stop = threading.Event()
    with serving(Limits(), Echo(), stop) as (address, service), connect(address, ASK) as sock:
        service.hold = threading.Event()
        wait_for(lambda: service.bodies)
        stop.set()
        assert service.stopped.wait(5)
        service.hold.set()
        answer = read_to_the_end(sock)
        assert answer.startswith(b"HTTP/1.1 200")
        assert b"\r\nconnection: close\r\n" in answer


def test_a_connection_that_has_ended_is_not_kept() -> None:
    def kept() -> int:
        gc.collect()
        return sum(isinstance(found, Connection) for found in gc.get_objects())

    before = kept()  # other tests' servers may have left some
    with serving(Limits(), Echo()) as (address, _):
        for _ in range(20):
            with connect(address, ASK.replace(b"Host:", b"Connection: close\r\nHost:")) as sock:
                assert read_to_the_end(sock).endswith(b"hi")
        wait_for(lambda: kept() <= before + 1, 5, "none is kept for the time that its application may go on")
