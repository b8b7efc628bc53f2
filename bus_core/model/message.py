"""Model: an event inside a bus, and the defaults of a dispatch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

HOPS_HEADER = "knative-hops"
"""The only header that the host adds: the number of replies that led to this event."""


class Message:
    """One event inside a bus: headers and a payload. It may represent a CloudEvent.

    Attributes:
        headers: names in lower case.
        payload: the raw body, never decoded.

    Code treats it as immutable, so threads may share it.
    """

    __slots__ = ("headers", "payload")

    def __init__(self, headers: Mapping[str, str], payload: bytes) -> None:
        self.headers: Mapping[str, str] = {name.lower(): value for name, value in headers.items()}
        self.payload = payload

    def __repr__(self) -> str:
        # The payload is the user's data, so logs show only its length.
        return f"Message(headers={dict(self.headers)!r}, payload=<{len(self.payload)} bytes>)"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Message):
            return NotImplemented
        return self.headers == other.headers and self.payload == other.payload

    __hash__ = None  # type: ignore[assignment]  # headers are a mapping

    @property
    def hops(self) -> int:
        """The number of replies that led to this event; 0 if the header is missing or not a number."""
        value = self.headers.get(HOPS_HEADER, "")
        return int(value) if value.isascii() and value.isdigit() and len(value) < 10 else 0


@dataclass(frozen=True, slots=True)
class DispatchDefaults:
    """The defaults of a dispatch.

    Attributes:
        namespace: completes a destination that is a single-label name.
        reply_to: where a non-empty reply goes; empty means nowhere.
    """

    namespace: str = "default"
    reply_to: str = ""
