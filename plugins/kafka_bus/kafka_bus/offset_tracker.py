"""Driver: the offset tracker of one partition. It knows which records are resolved. Pure state, no Kafka."""

from __future__ import annotations

from collections import deque


class OffsetTracker:
    """The records of one partition, from the oldest unresolved one to the newest. Not thread-safe.

    Offsets ascend, but they may have gaps: compaction and transaction markers leave some out.
    """

    def __init__(self) -> None:
        self._open: deque[int] = deque()
        self._resolved: set[int] = set()
        self._next: int | None = None

    def add(self, offset: int) -> None:
        """Track a record that was read."""
        self._open.append(offset)

    def resolve(self, offset: int) -> None:
        """Mark a record as resolved: it needs no further delivery."""
        self._resolved.add(offset)
        while self._open and self._open[0] in self._resolved:
            first = self._open.popleft()
            self._resolved.discard(first)
            self._next = first + 1

    @property
    def committable(self) -> int | None:
        """The offset to commit, which is the next one to read after a restart. None until a prefix is resolved."""
        return self._next

    @property
    def oldest(self) -> int | None:
        """The oldest unresolved offset; None if there is none."""
        return self._open[0] if self._open else None

    @property
    def span(self) -> int:
        """The number of records from the oldest unresolved one to the newest. It includes resolved ones."""
        return len(self._open)

    @property
    def unresolved(self) -> int:
        """The number of unresolved records."""
        return len(self._open) - len(self._resolved)
