"""How far a partition has come: which offsets are resolved, and up to where they all are. Pure state."""

from __future__ import annotations

from collections import deque


class Progress:
    """The records of one partition from the oldest unresolved one on. Not thread-safe.

    Offsets come ascending but not without gaps: compaction and transaction markers leave some out.
    """

    def __init__(self) -> None:
        self._open: deque[int] = deque()
        self._resolved: set[int] = set()
        self._next: int | None = None

    def add(self, offset: int) -> None:
        """A record was read."""
        self._open.append(offset)

    def resolve(self, offset: int) -> None:
        """A record needs nothing more."""
        self._resolved.add(offset)
        while self._open and self._open[0] in self._resolved:
            first = self._open.popleft()
            self._resolved.discard(first)
            self._next = first + 1

    @property
    def committable(self) -> int | None:
        """The offset to commit, that is the next one to read after a restart; None while there is nothing new."""
        return self._next

    @property
    def oldest(self) -> int | None:
        """The oldest unresolved offset."""
        return self._open[0] if self._open else None

    @property
    def span(self) -> int:
        """How many records were read from the oldest unresolved one on, resolved ones among them included."""
        return len(self._open)

    @property
    def unresolved(self) -> int:
        return len(self._open) - len(self._resolved)
