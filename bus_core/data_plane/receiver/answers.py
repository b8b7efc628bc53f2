"""Receiver: its refusals, as Falcon responses and as ASGI messages. Each one is a sentence of plain text."""

from __future__ import annotations

import math

import falcon
import falcon.asgi

from bus_core import telemetry
from bus_core.data_plane.server import Scope, Send

_TEXT = "text/plain; charset=utf-8"


def answer(resp: falcon.asgi.Response, status: int, text: str) -> None:
    resp.status = falcon.code_to_http_status(status)
    resp.content_type = _TEXT
    resp.text = text + "\n"


def refuse(
    resp: falcon.asgi.Response,
    status: int,
    reason: str,
    text: str,
    *,
    retry_after: float | None = None,
    close: bool = False,
) -> None:
    """Refuse an event and count it.

    Args:
        reason: the label of the metric.
        retry_after: seconds.
        close: end the connection, because the rest of the body is not worth reading.
    """
    telemetry.refused.inc(reason)
    answer(resp, status, text)
    if retry_after is not None:
        resp.set_header("retry-after", str(max(1, math.ceil(retry_after))))
    if close:
        resp.set_header("connection", "close")


async def send_refusal(
    scope: Scope, send: Send, status: int, reason: str, text: str, header: tuple[bytes, bytes]
) -> None:
    """Refuse an event before Falcon sees it; without the answer's body where HEAD asks."""
    telemetry.refused.inc(reason)
    body = f"{text}\n".encode()
    about = [(b"content-type", _TEXT.encode()), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": [*about, header]})
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})


def too_large(length: int, cap: int) -> str:
    return f"the event has {length} bytes, at most {cap} are taken"
