"""Receiver: reads the body of an event, and knows a truncated one from a complete one."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import falcon.asgi

from bus_core.data_plane.server import Receive
from bus_core.model.errors import MessageTooLargeError


class BodyError(Exception):
    """The body of an event did not arrive whole, or not in time. The connection is of no more use.

    Attributes:
        status: the HTTP status code of the answer.
        reason: the label of the metric.
    """

    def __init__(self, status: int, reason: str, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.reason = reason


class EventRequest(falcon.asgi.Request):
    """A Falcon request that keeps the ASGI events of its body.

    Falcon's own stream turns `http.disconnect` into the end of the body (measured), so that a chunked event that was
    cut short looks complete. An application uses this class with `falcon.asgi.App(request_type=EventRequest)`.

    Attributes:
        first_event: the ASGI event that Falcon has received before it calls a responder.
        receive_event: the ASGI callable for the following ones.
    """

    __slots__ = ("first_event", "receive_event")

    def __init__(
        self,
        scope: dict[str, Any],
        receive: Any,
        first_event: Mapping[str, Any] | None = None,
        options: falcon.RequestOptions | None = None,
    ) -> None:
        super().__init__(scope, receive, first_event, options)
        self.first_event = first_event
        self.receive_event: Receive = receive


def whole_body(req: falcon.asgi.Request, length: int) -> bytes | None:
    """The body of an event that arrived whole with its head, as nearly all do; None for any other."""
    if isinstance(req, EventRequest):
        event = req.first_event
        if event is not None and not event.get("more_body", False) and event["type"] == "http.request":
            body: bytes = event.get("body", b"")
            return body if len(body) == length else None
    return None


async def read_body(req: falcon.asgi.Request, cap: int, length: int, timeout: float) -> bytes:
    """The whole body of an event.

    Args:
        req: an `EventRequest`, or any other Falcon request, whose body then needs a Content-Length.
        cap: most bytes.
        length: its Content-Length; -1 without one.
        timeout: seconds for the part that has not arrived yet.

    Raises:
        BodyError: the sender went away first, the rest did not come in time, or the end of the body cannot be told from
            its truncation.
        MessageTooLargeError: more than `cap` bytes came.
    """
    if not isinstance(req, EventRequest):
        body = await _read_stream(req, length, timeout)
    else:
        event = req.first_event or await req.receive_event()
        if event["type"] != "http.request":
            raise _truncated()
        body = event.get("body", b"")
        if event.get("more_body", False):
            body = await _read_rest(req.receive_event, body, cap, timeout)
    if len(body) > cap:
        raise MessageTooLargeError(f"the event is larger than the {cap} bytes that are taken")
    if length >= 0 and len(body) != length:
        raise _truncated()
    return body


async def _read_stream(req: falcon.asgi.Request, length: int, timeout: float) -> bytes:
    try:
        async with asyncio.timeout(timeout):
            if length >= 0:
                return await req.stream.read()
            if await req.stream.read(1):
                raise BodyError(411, "invalid", "this application takes events with a Content-Length only")
    except TimeoutError:
        raise _slow(timeout) from None
    return b""


async def _read_rest(receive: Receive, first: bytes, cap: int, timeout: float) -> bytes:
    """The first piece and all others. The deadline is looked at for each piece as well, because `asyncio.wait_for` of
    Python 3.11, which some servers wait with, swallows a cancellation that meets a piece: a drip-fed body would never
    end (measured)."""
    parts, size, more = [first], len(first), True
    now = asyncio.get_running_loop().time
    deadline = now() + timeout
    try:
        async with asyncio.timeout(timeout):
            while more:
                if size > cap:
                    raise MessageTooLargeError(f"the event is larger than the {cap} bytes that are taken")
                if now() > deadline:
                    raise _slow(timeout)
                event = await receive()
                if event["type"] != "http.request":
                    raise _truncated()
                parts.append(event.get("body", b""))
                size += len(parts[-1])
                more = event.get("more_body", False)
    except TimeoutError:
        raise _slow(timeout) from None
    return b"".join(parts)


def _truncated() -> BodyError:
    return BodyError(400, "truncated", "the body ended before it was complete")


def _slow(timeout: float) -> BodyError:
    return BodyError(408, "timeout", f"the body took longer than {timeout:g} seconds")
