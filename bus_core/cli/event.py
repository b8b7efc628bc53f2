"""Command line: makes the CloudEvents that `bus send` and `bus demo` send, in binary mode."""

from __future__ import annotations

import datetime as dt
import json
import uuid
from collections.abc import Mapping

from bus_core.model.message import Message


def make_event(data: bytes, *, type_: str, source: str, headers: Mapping[str, str] | None = None) -> Message:
    """A valid CloudEvent (CloudEvents 1.0, HTTP binding, section 3.1) with a new id, the current time, and a content
    type that fits the data. `headers` override these."""
    made = {
        "ce-specversion": "1.0",
        "ce-id": str(uuid.uuid4()),
        "ce-source": source,
        "ce-type": type_,
        "ce-time": dt.datetime.now(dt.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "content-type": _content_type(data),
    }
    return Message(made | {name.lower(): value for name, value in (headers or {}).items()}, data)


def _content_type(data: bytes) -> str:
    try:
        json.loads(data)
    except ValueError:
        pass
    else:
        return "application/json"
    try:
        data.decode()
    except UnicodeDecodeError:
        return "application/octet-stream"
    return "text/plain; charset=utf-8"
