"""Server: the registry of a worker's open connections: limit, deadlines, and the choice of whom to evict."""

from __future__ import annotations

import asyncio
import time
from itertools import takewhile
from typing import Protocol

from bus_core.data_plane.server.service import Limits
from bus_core.telemetry import get_logger

MAX_LINGERING = 128
"""Connections that are closing, beyond the limit of open ones. Each still needs a file descriptor."""

_COMPLAIN_EVERY = 1.0

log = get_logger(__name__)


class Entry(Protocol):
    """A connection, as the registry sees it."""

    def evict(self) -> None:
        """Make room for another connection."""

    def expire(self) -> None:
        """A deadline has passed."""

    def drop(self) -> None:
        """Close the connection now."""


class Registry:
    """All connections of a worker. Use it on the event loop's thread only.

    The dicts are ordered by the time in their values, which is of `time.monotonic`.

    Attributes:
        is_stopping: every answer closes its connection, so that senders look for another worker.
        fresh: connections that have sent no whole request yet, since they were opened.
        idle: connections that wait for another request head, since the last answer.
        bodies: connections whose request body is incomplete, since the end of its head.
    """

    def __init__(self, limits: Limits, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.is_stopping = False
        self.fresh: dict[Entry, float] = {}
        self.idle: dict[Entry, float] = {}
        self.bodies: dict[Entry, float] = {}
        self._limits = limits
        self._open: set[Entry] = set()
        self._lingering: dict[Entry, float] = {}
        self._complained = 0.0

    def __len__(self) -> int:
        return len(self._open) + len(self._lingering)

    def admit(self, connection: Entry) -> bool:
        """Register a new connection, in place of another one if all places are taken.

        Returns:
            False if each of the others has sent a whole request that is being worked on.
        """
        if len(self._open) >= self._limits.max_connections:
            victim = next(iter(self.fresh), None) or next(iter(self.idle), None) or next(iter(self.bodies), None)
            self._complain(refused=victim is None)
            if victim is None:
                return False
            self.forget(victim)
            victim.evict()
        self._open.add(connection)
        self.fresh[connection] = time.monotonic()
        return True

    def forget(self, connection: Entry) -> None:
        self._open.discard(connection)
        for book in (self.fresh, self.idle, self.bodies, self._lingering):
            book.pop(connection, None)

    def linger(self, connection: Entry, seconds: float) -> None:
        """The connection closes, and may take so long. It no longer counts against the limit."""
        self.forget(connection)
        if len(self._lingering) >= MAX_LINGERING:
            oldest = next(iter(self._lingering))
            self.forget(oldest)
            oldest.drop()
        self._lingering[connection] = time.monotonic() + seconds

    def sweep(self) -> None:
        """End what has taken too long. The worker's heartbeat calls this, in place of a timer for each connection."""
        now = time.monotonic()
        limits = self._limits
        late = [one for one in _before(self.fresh, now - limits.header_timeout) if one not in self.bodies]
        late += _before(self.idle, now - limits.keepalive)
        late += _before(self.bodies, now - limits.body_timeout)
        for connection in late:
            connection.expire()
        for connection in [one for one, end in self._lingering.items() if end < now]:
            self.forget(connection)
            connection.drop()

    def close_idle(self) -> None:
        """Close the connections that wait for a request and those whose request is incomplete."""
        for connection in {**self.fresh, **self.idle, **self.bodies}:
            connection.drop()

    def drop_all(self) -> None:
        for connection in [*self._open, *self._lingering]:
            connection.drop()

    def _complain(self, *, refused: bool) -> None:
        now = time.monotonic()
        if now - self._complained > _COMPLAIN_EVERY:
            self._complained = now
            what = "answering new ones 503" if refused else "closing those without a complete request"
            log.warning(f"too many connections, {what}", limit=self._limits.max_connections)


def _before(book: dict[Entry, float], moment: float) -> list[Entry]:
    return [connection for connection, _ in takewhile(lambda entry: entry[1] <= moment, book.items())]
