"""A recorder of the order in which locks are taken, and of the cycles in it: two orders may one day be a deadlock.

For example, one thread takes A and then B, and another one B and then A. The recorder names a lock by the line that
makes it, so all locks of one class are one. It records what is taken by `with`: a lock that one thread acquires and
another one releases is a gate and guards nothing. Locks of the standard library and of other packages are not recorded.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from typing import Any

OURS = ("bus_core", "stub_bus", "kafka_bus")


class LockOrder:
    """Which lock was taken while which was held. Thread-safe."""

    def __init__(self) -> None:
        self._real = (threading.Lock, threading.RLock)
        self._guard = threading.Lock()
        self._held = threading.local()
        self._after: dict[str, set[str]] = {}

    def install(self) -> None:
        """From now on the locks that our packages make are recorded."""
        threading.Lock, threading.RLock = (self._maker(real) for real in self._real)  # type: ignore[assignment]

    def remove(self) -> None:
        """Give back the real locks; those that were made meanwhile go on being recorded."""
        threading.Lock, threading.RLock = self._real

    def recorded(self, lock: Any, name: str) -> Recorded:
        """The lock, recorded under this name."""
        return Recorded(lock, name, self)

    def taken(self, name: str) -> None:
        held = self._names()
        if held and name not in held:  # one that is held is an RLock, or a second object of the same class
            with self._guard:
                for before in held:
                    self._after.setdefault(before, set()).add(name)
        held.append(name)

    def given_back(self, name: str) -> None:
        self._names().remove(name)

    def cycles(self) -> list[str]:
        """Each pair of locks that were taken in both orders, directly or by way of others."""
        reach = {name: self._reachable(name) for name in self._after}
        pairs = {tuple(sorted((a, b))) for a in reach for b in reach[a] if a != b and a in reach.get(b, ())}
        return [f"{a} and {b} are taken in both orders" for a, b in sorted(pairs)]

    def _reachable(self, start: str) -> set[str]:
        found: set[str] = set()
        ahead = [start]
        while ahead:
            fresh = self._after.get(ahead.pop(), set()) - found
            found |= fresh
            ahead += fresh
        return found

    def _names(self) -> list[str]:
        held: list[str] = self._held.__dict__.setdefault("names", [])
        return held

    def _maker(self, real: Callable[[], Any]) -> Callable[[], Any]:
        def make() -> Any:
            frame = sys._getframe(1)
            while frame.f_globals.get("__name__") == "threading" and frame.f_back is not None:
                frame = frame.f_back  # a Condition makes its own lock
            module = str(frame.f_globals.get("__name__"))
            is_ours = module.partition(".")[0] in OURS
            return self.recorded(real(), f"{module}:{frame.f_lineno}") if is_ours else real()

        return make


class Recorded:
    """A lock that says when it is taken and given back. A Condition waits on it by the lock's own methods."""

    def __init__(self, lock: Any, name: str, order: LockOrder) -> None:
        self._lock = lock
        self._name = name
        self._order = order

    def __enter__(self) -> None:
        self._lock.acquire()
        self._order.taken(self._name)

    def __exit__(self, *_: object) -> None:
        self._order.given_back(self._name)
        self._lock.release()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._lock, name)
