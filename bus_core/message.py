"""Message, DispatchDefaults, and the rule which headers travel with an event."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from bus_core.errors import InvalidMessageError

HOPS_HEADER = "knative-hops"
"""The one header the host adds: how many replies led to this event."""

FORWARDED_HEADERS = frozenset({"content-type", "x-request-id", "traceparent", "tracestate", "baggage"})
"""Forwarded by name. The last three are W3C Trace Context and W3C Baggage."""

FORWARDED_PREFIXES = ("knative-", "ce-", "x-b3-", "x-ot-")

_NAME_CACHE_LIMIT = 1024


class Message:
    """One event inside a bus: headers and a payload. It may represent a CloudEvent.

    Attributes:
        headers: names in lower case.
        payload: the raw body, never decoded.

    Treated as immutable once made, and therefore safe to share between threads.
    """

    __slots__ = ("headers", "payload")

    def __init__(self, headers: Mapping[str, str], payload: bytes) -> None:
        self.headers: Mapping[str, str] = {name.lower(): value for name, value in headers.items()}
        self.payload = payload

    def __repr__(self) -> str:
        # The payload is the user's data: its length is enough for a log line.
        return f"Message(headers={dict(self.headers)!r}, payload=<{len(self.payload)} bytes>)"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Message):
            return NotImplemented
        return self.headers == other.headers and self.payload == other.payload

    __hash__ = None  # type: ignore[assignment]  # headers are a mapping

    @property
    def hops(self) -> int:
        """How many replies led here; 0 for an event from outside or a value that is no number."""
        value = self.headers.get(HOPS_HEADER, "")
        return int(value) if value.isascii() and value.isdigit() and len(value) < 10 else 0


@dataclass(frozen=True, slots=True)
class DispatchDefaults:
    """What a dispatch falls back on.

    Attributes:
        namespace: completes a destination that is a single-label name.
        reply_to: where a non-empty reply goes; empty for nowhere.
    """

    namespace: str = "default"
    reply_to: str = ""


class ForwardedHeaders:
    """The rule which headers are handed on with an event, and the only place that applies it.

    Args:
        extra: further header names; one ending in `*` or `-` is a prefix.

    Thread-safe: the one piece of state is a bounded cache of answers.
    """

    def __init__(self, extra: Iterable[str] = ()) -> None:
        names = [name.strip().lower() for name in extra]
        self._names = FORWARDED_HEADERS | {name for name in names if not name.endswith(("*", "-"))}
        self._prefixes = FORWARDED_PREFIXES + tuple(name.rstrip("*") for name in names if name.endswith(("*", "-")))
        self._cache: dict[bytes, str | None] = {}

    def __contains__(self, name: str) -> bool:
        return name in self._names or name.startswith(self._prefixes)

    def select(self, raw: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
        """The forwarded ones among raw headers (ASGI form: lower-case names); the first of a repeated header wins.

        Raises:
            InvalidMessageError: a forwarded value is not valid UTF-8 or holds CR, LF or NUL.
        """
        cache = self._cache
        chosen: dict[str, str] = {}
        for raw_name, raw_value in raw:
            try:
                name = cache[raw_name]
            except KeyError:
                name = self._learn(raw_name)
            if name is None or name in chosen:
                continue
            try:
                value = raw_value.decode()
            except UnicodeDecodeError:
                raise InvalidMessageError(f"the header {name} is not valid UTF-8") from None
            if not value.isprintable():
                check_header_value(name, value)
            chosen[name] = value
        return chosen

    def _learn(self, raw_name: bytes) -> str | None:
        name = raw_name.decode("latin-1").lower()
        answer = name if name in self else None
        if len(self._cache) < _NAME_CACHE_LIMIT:  # names come from strangers: the cache must not grow with them
            self._cache[raw_name] = answer
        return answer


def check_header_value(name: str, value: str) -> None:
    """Refuse what would break the framing of a request (RFC 9110, section 5.5).

    Raises:
        InvalidMessageError: the value holds CR, LF or NUL.
    """
    for character, label in (("\r", "CR"), ("\n", "LF"), ("\0", "NUL")):
        if character in value:
            raise InvalidMessageError(f"the header {name} holds {label}, which no header value may (RFC 9110)")
