"""Model: forwarded headers, the rule that selects the headers that travel with an event."""

from __future__ import annotations

from collections.abc import Iterable

from bus_core.model.errors import InvalidMessageError

FORWARDED_HEADERS = frozenset({"content-type", "x-request-id", "traceparent", "tracestate", "baggage"})
"""Forwarded by name. The last three are W3C Trace Context and W3C Baggage."""

FORWARDED_PREFIXES = ("knative-", "ce-", "x-b3-", "x-ot-")

_NAME_CACHE_LIMIT = 1024


class ForwardedHeaders:
    """Decides which headers are forwarded with an event. No other code decides this.

    Args:
        extra: further header names. A name that ends in `*` or `-` is a prefix.

    Thread-safe: its only state is a bounded cache of answers.
    """

    def __init__(self, extra: Iterable[str] = ()) -> None:
        names = [name.strip().lower() for name in extra]
        self._names = FORWARDED_HEADERS | {name for name in names if not name.endswith(("*", "-"))}
        self._prefixes = FORWARDED_PREFIXES + tuple(name.rstrip("*") for name in names if name.endswith(("*", "-")))
        self._cache: dict[bytes, str | None] = {}

    def __contains__(self, name: str) -> bool:
        return name in self._names or name.startswith(self._prefixes)

    def select(self, raw: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
        """Select the forwarded headers from `raw` (ASGI form: lower-case names). The first of repeated headers counts.

        Raises:
            InvalidMessageError: a forwarded value is not valid UTF-8, or contains CR, LF or NUL.
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
        if len(self._cache) < _NAME_CACHE_LIMIT:  # Senders choose the names, so the cache is bounded.
            self._cache[raw_name] = answer
        return answer


def check_header_value(name: str, value: str) -> None:
    """Check that a value cannot break the framing of a request (RFC 9110, section 5.5).

    Raises:
        InvalidMessageError: the value contains CR, LF or NUL.
    """
    for character, label in (("\r", "CR"), ("\n", "LF"), ("\0", "NUL")):
        if character in value:
            raise InvalidMessageError(f"the header {name} contains {label}, which RFC 9110 forbids in a header value")
