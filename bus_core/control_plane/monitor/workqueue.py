"""Monitor: the workqueue. Keys to reconcile, each at most once in the queue and in one thread at a time."""

from __future__ import annotations

import heapq
import itertools
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)

FIRST_BACKOFF = 0.1
MAX_BACKOFF = 30.0


def backoff(failures: int, jitter: Callable[[], float] = random.random) -> float:
    """Seconds to wait after `failures` failures in a row (from 1): doubled each time, capped, then times 0.5 to 1."""
    return min(FIRST_BACKOFF * 2.0 ** min(failures - 1, 30), MAX_BACKOFF) * (0.5 + 0.5 * jitter())


class WorkQueue(Generic[K]):
    """Deduplicates, delays, and backs off per key, as the workqueue of Kubernetes' client-go does. Thread-safe.

    A key that is added while a thread works on it is queued again when that work is `done`.

    Args:
        clock: seconds, monotonic.
        jitter: in [0, 1); see `backoff`.
    """

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, jitter: Callable[[], float] = random.random
    ) -> None:
        self._clock = clock
        self._jitter = jitter
        self._changed = threading.Condition()
        self._queue: deque[K] = deque()
        self._dirty: set[K] = set()
        self._working: set[K] = set()
        self._failures: dict[K, int] = {}
        self._due: dict[K, float] = {}
        self._later: list[tuple[float, int, K]] = []
        self._sequence = itertools.count()
        self._closed = False

    def add(self, key: K) -> None:
        """Queue a key now, also if it waits for a delay."""
        with self._changed:
            self._due.pop(key, None)
            self._add(key)

    def add_after(self, key: K, delay: float) -> None:
        """Queue a key in `delay` seconds. An earlier moment for which it already waits stays."""
        with self._changed:
            if self._closed or key in self._dirty:
                return
            moment = self._clock() + delay
            if moment < self._due.get(key, float("inf")):
                self._due[key] = moment
                heapq.heappush(self._later, (moment, next(self._sequence), key))
                self._changed.notify()

    def add_failed(self, key: K) -> float:
        """Queue a failed key after its back-off. Returns the delay in seconds. `forget` resets the back-off."""
        with self._changed:
            failures = self._failures[key] = self._failures.get(key, 0) + 1
        delay = backoff(failures, self._jitter)
        self.add_after(key, delay)
        return delay

    def forget(self, key: K) -> None:
        """Note that the key succeeded: its next failure backs off from the start."""
        with self._changed:
            self._failures.pop(key, None)

    def get(self, timeout: float | None = None) -> K | None:
        """Take the next key; call `done` with it afterwards. None after `close`, or when `timeout` has passed."""
        deadline = None if timeout is None else self._clock() + timeout
        with self._changed:
            while True:
                if self._closed:
                    return None
                now = self._clock()
                self._move_due(now)
                if self._queue:
                    key = self._queue.popleft()
                    self._dirty.discard(key)
                    self._working.add(key)
                    return key
                moments = [self._later[0][0]] if self._later else []
                if deadline is not None:
                    if now >= deadline:
                        return None
                    moments.append(deadline)
                self._changed.wait(min(moments) - now if moments else None)

    def done(self, key: K) -> bool:
        """Note that the work on the key has ended. Returns whether it was added meanwhile, and so is queued again."""
        with self._changed:
            self._working.discard(key)
            again = key in self._dirty
            if again:
                self._queue.append(key)
            self._changed.notify()
            return again

    def close(self) -> None:
        """Let every `get` return None from now on."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _add(self, key: K) -> None:
        if self._closed or key in self._dirty:
            return
        self._dirty.add(key)
        if key not in self._working:
            self._queue.append(key)
            self._changed.notify()

    def _move_due(self, now: float) -> None:
        while self._later and self._later[0][0] <= now:
            moment, _, key = heapq.heappop(self._later)
            if self._due.get(key) == moment:  # else the entry is stale, because the key was queued earlier
                del self._due[key]
                self._add(key)
