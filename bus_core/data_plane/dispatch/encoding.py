"""Dispatch: turns an event into the bytes of a request, once for all its destinations."""

from __future__ import annotations

import re

from bus_core.model.errors import InvalidMessageError
from bus_core.model.headers import ForwardedHeaders, check_header_value
from bus_core.model.message import Message

FRAMING_HEADERS = frozenset(
    {
        "connection",
        "content-length",
        "expect",
        "host",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
"""They belong to one connection (RFC 9110, section 7.6.1) or dispatch sets them; a message never carries them on."""

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9a-z-]+")
_NAME_CACHE_LIMIT = 1024
_valid_names: set[str] = set()


class Encoded:
    """One event, ready to be sent to any number of destinations.

    Attributes:
        head: the header lines and the empty line after them, without request line and Host.
        payload: the event's bytes object. All destinations share it without a copy.
        size: bytes of both.

    Immutable, safe to share between threads.
    """

    __slots__ = ("head", "payload", "size")

    def __init__(self, head: bytes, payload: bytes) -> None:
        self.head = head
        self.payload = payload
        self.size = len(head) + len(payload)

    def __repr__(self) -> str:
        return f"Encoded(<{len(self.head)} bytes of headers>, <{len(self.payload)} bytes>)"


def encode(message: Message, forwarded: ForwardedHeaders | None = None) -> Encoded:
    """Make the bytes of an event.

    Args:
        message: its header values go out as UTF-8.
        forwarded: decides which headers are sent; None for all. Framing headers are never sent.

    Raises:
        InvalidMessageError: a header's name is not a token, or its value contains CR, LF, NUL or a lone surrogate.
    """
    lines = [
        f"{name}: {value}\r\n"
        for name, value in message.headers.items()
        if (name in _valid_names or _learn(name)) and (forwarded is None or name in forwarded)
    ]
    text = "".join(lines)
    # Three scans of the whole text are cheaper than three of each value. Only when they find something, find out where.
    if text.count("\r") != len(lines) or text.count("\n") != len(lines) or "\0" in text:
        for name, value in message.headers.items():
            check_header_value(name, value)
    try:
        head = f"{text}content-length: {len(message.payload)}\r\n\r\n".encode()
    except UnicodeEncodeError:
        raise InvalidMessageError("a header value holds a lone surrogate, which UTF-8 cannot carry") from None
    return Encoded(head, message.payload)


def _learn(name: str) -> bool:
    """Whether a header name seen for the first time may be sent."""
    if name in FRAMING_HEADERS:
        return False
    if not _TOKEN.fullmatch(name):
        raise InvalidMessageError(f"the header name {name[:80]!r} is not made of the characters that RFC 9110 allows")
    if len(_valid_names) < _NAME_CACHE_LIMIT:  # senders choose the names, so the cache is bounded
        _valid_names.add(name)
    return True
