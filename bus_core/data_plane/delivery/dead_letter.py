"""Delivery: makes a dead letter: the unchanged event, with headers that tell why it was not delivered."""

from __future__ import annotations

import datetime as dt
import urllib.parse

from bus_core.model.destination import masked
from bus_core.model.errors import DeadlineError, DispatchError, ResponseError
from bus_core.model.message import HOPS_HEADER, Message

MAX_DATA = 1024
"""The limit in bytes for the subscriber's answer in a dead letter."""

_PREFIX = "ce-knativeerror"


class LoopError(DispatchError):
    """More replies led to this event than are allowed."""


class StalledError(DispatchError):
    """The lane was full and had no success for too long: the event was not tried at all."""


def reason(error: DispatchError) -> str:
    """The reason for a failed delivery in one word, for metrics, logs and dead letters."""
    kinds: list[tuple[type[DispatchError], str]] = [
        (LoopError, "loop"),
        (StalledError, "stalled"),
        (ResponseError, "status"),
        (DeadlineError, "timeout"),
    ]
    return next((word for kind, word in kinds if isinstance(error, kind)), "network")


def dead_letter(
    message: Message, destination: str, error: DispatchError, attempts: int, first: dt.datetime, last: dt.datetime
) -> Message:
    """The message with Knative's error extensions and ours, and one more hop. Values are percent-encoded (CloudEvents
    HTTP binding, section 3.1.3.2), which also makes an answer's text safe in a header. The destination's query is
    masked: it may contain a secret that the sink must not see."""
    data = error.body if isinstance(error, ResponseError) else str(error).encode()
    facts = {
        "dest": _safe(masked(destination).encode()),
        "data": _safe(data[:MAX_DATA]),
        "reason": reason(error),
        "attempts": str(attempts),
        "first": _stamp(first),
        "last": _stamp(last),
    }
    if isinstance(error, ResponseError):
        facts["code"] = str(error.status)
    headers = {**message.headers, **{_PREFIX + name: value for name, value in facts.items()}}
    return Message({**headers, HOPS_HEADER: str(message.hops + 1)}, message.payload)


def is_dead_letter(message: Message) -> bool:
    return _PREFIX + "dest" in message.headers


def _safe(data: bytes) -> str:
    return urllib.parse.quote(data, safe=" !#$&'()*+,-./:;<=>?@[]^_`{|}~")


def _stamp(moment: dt.datetime) -> str:
    return moment.astimezone(dt.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
