"""Delivery: measures how busy the process is, and adapts the number of concurrent attempts."""

from __future__ import annotations

import time


class CpuLoad:
    """The CPU use of this process between two looks. Not thread-safe.

    Args:
        least: the least seconds between two looks; an earlier look returns None.
        most: the most seconds between two looks; a later look returns None.
    """

    def __init__(self, least: float, most: float) -> None:
        self._least = least
        self._most = most
        self._looked = 0.0
        self._used = 0.0

    def look(self, now: float) -> float | None:
        """The used part of a core since the last look; None if that was too short or too long ago."""
        elapsed = now - self._looked
        if elapsed < self._least:
            return None
        used, before = time.process_time(), self._used
        self._looked, self._used = now, used
        return None if elapsed > self._most else (used - before) / elapsed


class AdaptiveLimit:
    """A limit of concurrent work: higher while the process has time, lower while it is busy. Not thread-safe.

    Args:
        few: the least.
        most: the most.
        busy: the part of a core at which the process counts as busy.
        load: the CPU use.

    Attributes:
        value: the limit; at first `few`.
    """

    def __init__(self, few: int, most: int, busy: float, load: CpuLoad) -> None:
        self.value = few
        self._few = few
        self._most = most
        self._busy = busy
        self._load = load

    def adapt(self, now: float, *, reached: bool) -> None:
        """Look at the load: halve the limit while the process is busy, else double it if it is reached."""
        used = self._load.look(now)
        if used is None:
            return
        if used > self._busy:
            self.value = max(self.value // 2, self._few)
        elif reached:
            self.value = min(self.value * 2, self._most)
