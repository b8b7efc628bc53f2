"""Receiver: reads the body of an event, and knows a truncated one from a complete one."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import falcon.asgi

from bus_core.data_plane.server import Receive
from bus_core.model.errors import MessageTooLargeError


class TruncatedBodyError(Exception):
    """The sender went away before the body was complete."""


class SlowBodyError(Exception):
    """The body took too long. This is no TimeoutError, because a driver may raise that as well."""


class LengthRequiredError(Exception):
    """The body has no Content-Length, and the application does not show where it ends."""


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


async def read_body(req: falcon.asgi.Request, cap: int, length: int, timeout: float) -> bytes:
    """The whole body of an event.

    Args:
        req: an `EventRequest`, or any other Falcon request, whose body then needs a Content-Length.
        cap: most bytes.
        length: its Content-Length; -1 without one.
        timeout: seconds for the part that has not arrived yet.

    Raises:
        TruncatedBodyError: the sender went away first.
        MessageTooLargeError: more than `cap` bytes came.
        SlowBodyError: the rest did not come in time.
        LengthRequiredError: the end of the body cannot be told from its truncation.
    """
    if not isinstance(req, EventRequest):
        body = await _read_stream(req, length, timeout)
    else:
        event = req.first_event or await req.receive_event()
        if event["type"] != "http.request":
            raise TruncatedBodyError
        body = event.get("body", b"")
        if event.get("more_body", False):
            body = await _read_rest(req.receive_event, body, cap, timeout)
    if len(body) > cap:
        raise MessageTooLargeError(f"the event is larger than the {cap} bytes that are taken")
    if length >= 0 and len(body) != length:
        raise TruncatedBodyError
    return body


async def _read_stream(req: falcon.asgi.Request, length: int, timeout: float) -> bytes:
    try:
        async with asyncio.timeout(timeout):
            if length >= 0:
                return await req.stream.read()
            if await req.stream.read(1):
                raise LengthRequiredError
    except TimeoutError:
        raise SlowBodyError from None
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
                    raise SlowBodyError
                event = await receive()
                if event["type"] != "http.request":
                    raise TruncatedBodyError
                parts.append(event.get("body", b""))
                size += len(parts[-1])
                more = event.get("more_body", False)
    except TimeoutError:
        raise SlowBodyError from None
    return b"".join(parts)
