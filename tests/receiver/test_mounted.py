"""MessageReceiver as a part of an application, on any ASGI server."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Iterator
from typing import Any

import falcon.asgi
import pytest

from bus_core import ChannelReference, Message, MessageReceiver
from bus_core.data_plane.server import Connections, bind, serve
from tests.support import raw, request

CHUNKED = b"POST /events HTTP/1.1\r\nHost: a.b\r\nTransfer-Encoding: chunked\r\n\r\n"


class Service:
    """An application of somebody else."""

    def __init__(self, app: Any) -> None:
        self._app = app

    def app_at(self, address: tuple[str, int]) -> Any:
        return self._app

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Nothing to start."""

    async def stop(self, connections: Connections) -> None:
        connections.close_idle()


@contextlib.contextmanager
def serving(app: Any) -> Iterator[str]:
    stop = threading.Event()
    with bind("127.0.0.1:0") as listener:
        thread = threading.Thread(target=serve, args=(Service(app), [listener], stop))
        thread.start()
        try:
            yield f"127.0.0.1:{listener.getsockname()[1]}"
        finally:
            stop.set()
            thread.join(5)


@contextlib.contextmanager
def mounted(got: list[bytes], **options: Any) -> Iterator[str]:
    async def take(channel: ChannelReference, message: Message) -> None:
        got.append(message.payload)

    class Events:
        on_post = MessageReceiver(take, max_body_bytes=10).handle_request

    class Other:
        async def on_get(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
            resp.text = "theirs"

    app: Any = falcon.asgi.App(**options)
    app.add_route("/events", Events())
    app.add_route("/other", Other())
    with serving(app) as address:
        yield address


OPTIONS: list[dict[str, Any]] = [{}, {"request_type": MessageReceiver.request_type}]


@pytest.mark.parametrize("options", OPTIONS, ids=["plain", "request_type"])
def test_it_mounts_in_an_application_of_somebody_else(options: dict[str, Any]) -> None:
    got: list[bytes] = []
    with mounted(got, **options) as where:
        assert request(where, path="/events", host="a.b", body=b"mounted").status == 202
        assert request(where, path="/events", host="a.b", body=b"").status == 202
        assert b" 202 " in raw(where, b"POST /events HTTP/1.1\r\nHost: a.b\r\n\r\n"), "no length, no body"
        assert request(where, path="/events", host="a.b", body=b"x" * 11).status == 413
        assert request(where, path="/events", host="nodot").status == 400
        assert request(where, "GET", "/other", body=None).text == "theirs"
    assert got == [b"mounted", b"", b""]


@pytest.mark.parametrize("options", OPTIONS, ids=["plain", "request_type"])
@pytest.mark.parametrize(
    "part", [CHUNKED + b"3\r\nabc\r\n", b"POST /events HTTP/1.1\r\nHost: a.b\r\nContent-Length: 9\r\n\r\nabc"]
)
def test_a_body_cut_short_never_reaches_the_function(part: bytes, options: dict[str, Any]) -> None:
    got: list[bytes] = []
    with mounted(got, **options) as where:
        host, _, port = where.rpartition(":")
        for _ in range(3):
            with socket.create_connection((host, int(port))) as sock:
                sock.sendall(part)
        assert request(where, path="/events", host="a.b", body=b"whole").status == 202
    assert got == [b"whole"]


def test_a_chunked_body_needs_the_request_type_that_shows_its_end() -> None:
    got: list[bytes] = []
    with mounted(got) as where:
        answer = raw(where, CHUNKED + b"3\r\nabc\r\n0\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 411 ")
        assert b"Content-Length" in answer.partition(b"\r\n\r\n")[2]
    with mounted(got, request_type=MessageReceiver.request_type) as where:
        assert b" 202 " in raw(where, CHUNKED + b"3\r\nabc\r\n0\r\n\r\n")
        assert b" 413 " in raw(where, CHUNKED + b"b\r\n01234567890\r\n0\r\n\r\n")
    assert got == [b"abc"]


def call(app: Any, scope: dict[str, Any], *events: str) -> list[dict[str, Any]]:
    """The ASGI messages that an application sends when it receives these."""
    sent: list[dict[str, Any]] = []
    coming = iter(events)

    async def receive() -> dict[str, Any]:
        return {"type": next(coming)}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    asyncio.run(app(scope, receive, send))
    return sent


def test_it_starts_and_stops_with_the_lifespan_of_its_server() -> None:
    receiver = MessageReceiver(lambda channel, message: None)
    sent = call(receiver.asgi, {"type": "lifespan", "asgi": {}}, "lifespan.startup", "lifespan.shutdown")
    assert [message["type"] for message in sent] == ["lifespan.startup.complete", "lifespan.shutdown.complete"]


def test_it_closes_a_websocket() -> None:
    receiver = MessageReceiver(lambda channel, message: None)
    scope = {"type": "websocket", "asgi": {}, "path": "/", "headers": []}
    assert [message["type"] for message in call(receiver.asgi, scope, "websocket.connect")] == ["websocket.close"]
