"""Receiver: the complete ASGI application around it. It takes events with POST on / only."""

from __future__ import annotations

from typing import Any, Protocol

import falcon.asgi

from bus_core import telemetry
from bus_core.data_plane.receiver.answers import answer, send_refusal, too_large
from bus_core.data_plane.receiver.body import EventRequest
from bus_core.data_plane.server import Receive, Scope, Send


class Responder(Protocol):
    """The receiver, as its application sees it."""

    async def handle_request(self, req: falcon.asgi.Request, resp: falcon.asgi.Response, **_: Any) -> None: ...

    async def drained(self) -> int: ...


class EventApplication:
    """An ASGI application that receives events.

    Args:
        receiver: handles a POST on /.
        max_body_bytes: larger events are refused by their Content-Length, before their body is read.
    """

    def __init__(self, receiver: Responder, max_body_bytes: int) -> None:
        self._receiver = receiver
        self._cap = max_body_bytes
        app: Any = falcon.asgi.App(request_type=EventRequest)
        app.resp_options.default_media_type = None  # a 202 is empty, and of no type
        app.add_route("/", _Root(receiver))
        app.add_sink(_elsewhere, "/")
        self._falcon = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Decide first what Falcon cannot: it waits for the first piece of the body before it does anything else, and
        fails on a query that is no text."""
        if scope["type"] != "http":
            await self._answer_other(scope, receive, send)
            return
        scope["query_string"] = b""  # events have none
        if scope["method"] != "POST" and scope["path"] == "/":  # Falcon would answer OPTIONS itself
            await send_refusal(scope, send, 405, "method", "events are sent with POST", (b"allow", b"POST"))
            return
        for name, value in scope["headers"]:
            if name == b"content-length":
                if int(value) <= self._cap:
                    break
                # The connection closes, for what follows on it is a body that nobody reads.
                close = (b"connection", b"close")
                await send_refusal(scope, send, 413, "too_large", too_large(int(value), self._cap), close)
                return
        await self._falcon(scope, receive, send)

    async def _answer_other(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1000, "reason": "events are sent with POST"})
        elif scope["type"] == "lifespan":
            while (await receive())["type"] != "lifespan.shutdown":
                await send({"type": "lifespan.startup.complete"})
            await self._receiver.drained()
            await send({"type": "lifespan.shutdown.complete"})
        else:
            raise ValueError(f"the receiver does not speak the ASGI protocol {scope['type']!r}")


class _Root:
    """The resource at /."""

    def __init__(self, receiver: Responder) -> None:
        self.on_post = receiver.handle_request


async def _elsewhere(req: falcon.asgi.Request, resp: falcon.asgi.Response, **_: Any) -> None:
    telemetry.refused.inc("path")
    answer(resp, 404, "events are received on / only; the Host header names the channel")
