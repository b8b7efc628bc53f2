"""The flow from records to lanes: order, bounds, retries, progress of one subscription. No Kafka, no thread."""

from __future__ import annotations

import heapq
import itertools
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Literal

from bus_core import BusyError, Message, Outcome, UnknownSubscriptionError
from kafka_bus.progress import Progress

Ordering = Literal["key", "partition", "unordered"]
Submit = Callable[[Message], "Future[Outcome]"]

BUSY_PAUSE = 0.05
"""Seconds until a full lane is asked again."""

FIRST_BACKOFF = 1.0
MAX_BACKOFF = 30.0

READY_BYTES = 8 << 20
"""How much of what may be submitted at once is read ahead, over all partitions."""

HELD_BYTES = 32 << 20
"""How much of one partition is kept of what waits for another try, and of those behind it."""


@dataclass(slots=True, eq=False)
class Item:
    """One record on its way."""

    partition: Partition
    offset: int
    order: Any
    message: Message
    size: int
    failures: int = 0


@dataclass(slots=True, eq=False)
class Partition:
    """What is known of one assigned partition."""

    number: int
    progress: Progress = field(default_factory=Progress)
    ready: deque[Item] = field(default_factory=deque)
    behind: dict[Any, deque[Item]] = field(default_factory=dict)  # by order: what waits for the one before it
    held: int = 0  # bytes of what is held up: behind another one, or waiting for another try
    in_flight: int = 0
    gone: bool = False


class Flow:
    """Takes records in, submits them in order, and knows what may be committed. Thread-safe.

    Args:
        submit: hands an event to its lane; see `bus_core.DriverContext.submit`.
        ordering: `key`: those of one key one after the other; `partition`: all of a partition; `unordered`: none.
        max_in_flight: how many may be with the lane at once; about as many again are read ahead.
        max_uncommitted: how many records of a partition may lie between its oldest unresolved one and its newest.
    """

    def __init__(
        self,
        submit: Submit,
        *,
        ordering: Ordering,
        max_in_flight: int,
        max_uncommitted: int,
        clock: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._submit = submit
        self._ordering = ordering
        self._max_in_flight = max_in_flight
        self._max_uncommitted = max_uncommitted
        self._clock = clock
        self._jitter = jitter
        self._changed = threading.Condition()
        self._partitions: dict[int, Partition] = {}
        self._turns: deque[Partition] = deque()
        self._waiting: list[tuple[float, int, Item]] = []
        self._sequence = itertools.count()
        self._in_flight = 0
        self._ready = 0
        self._ready_bytes = 0
        self._busy_until = 0.0
        self._stopped = False

    def assign(self, partitions: Iterable[int]) -> None:
        with self._changed:
            for number in partitions:
                part = self._partitions[number] = Partition(number)
                self._turns.append(part)

    def offer(self, partition: int, offset: int, key: bytes | None, message: Message) -> None:
        """A record was read."""
        with self._changed:
            part = self._partitions.get(partition)
            if part is None:
                return  # it was revoked meanwhile; who has it now reads it
            order = partition if self._ordering == "partition" else key if self._ordering == "key" else None
            item = Item(part, offset, order, message, len(message.payload))
            part.progress.add(offset)
            if order in part.behind:
                part.behind[order].append(item)
                part.held += item.size
                return
            if order is not None:
                part.behind[order] = deque()
            self._make_ready(item)

    def pump(self) -> None:
        """Submit what may be submitted, until the lane is full."""
        while (item := self._next()) is not None:
            try:
                future = self._submit(item.message)
            except BusyError:
                with self._changed:
                    self._busy_until = self._clock() + BUSY_PAUSE
                    self._back(item)
                return
            except UnknownSubscriptionError:
                self.stop()  # it is going away: what is unresolved stays uncommitted
                with self._changed:
                    self._back(item)
                return
            if future.done():
                self._settle(item, future)  # not by way of a callback, which would come back here, ever deeper
            else:
                future.add_done_callback(lambda done, item=item: self._done(item, done))  # type: ignore[misc]

    def stop(self) -> None:
        """Submit nothing more. What is in flight is still resolved."""
        with self._changed:
            self._stopped = True

    def wait_room(self, timeout: float) -> bool:
        """Whether it is time to read on; waits for that when enough has been read ahead."""
        with self._changed:
            if not self._is_full(1):
                return True
            # Half of it: read in few large pieces rather than in many small ones.
            return self._changed.wait_for(lambda: not self._is_full(2), timeout)

    def wants_pause(self, partition: int) -> bool:
        """Whether no more should be read of this partition, because of what in it is held up."""
        with self._changed:
            part = self._partitions.get(partition)
            return part is not None and self._is_blocked(part)

    def blocked(self) -> dict[int, int]:
        """The partitions that wait for their oldest unresolved record, and its offset."""
        with self._changed:
            return {
                number: part.progress.oldest
                for number, part in self._partitions.items()
                if self._is_blocked(part) and part.progress.oldest is not None
            }

    def committable(self) -> dict[int, int]:
        """By partition the offset up to which everything is resolved."""
        with self._changed:
            found = {number: part.progress.committable for number, part in self._partitions.items()}
            return {number: offset for number, offset in found.items() if offset is not None}

    def position(self, partition: int) -> int | None:
        """The offset of the first record that is not resolved; None when none was read yet."""
        with self._changed:
            part = self._partitions.get(partition)
            if part is None:
                return None
            return part.progress.oldest if part.progress.committable is None else part.progress.committable

    def settle(self, partitions: Iterable[int], timeout: float) -> None:
        """Submit nothing more of these partitions, and wait for what of them is in flight."""
        with self._changed:
            parts = [self._partitions[number] for number in partitions if number in self._partitions]
            for part in parts:
                self._let_go(part)
            self._changed.wait_for(lambda: not any(part.in_flight for part in parts), timeout)

    def drop(self, partitions: Iterable[int]) -> None:
        """Forget these partitions: results that come later are ignored."""
        with self._changed:
            for number in partitions:
                part = self._partitions.pop(number, None)
                if part is not None:
                    self._let_go(part)
                    self._turns.remove(part)
            self._waiting = [entry for entry in self._waiting if not entry[2].partition.gone]
            heapq.heapify(self._waiting)

    @property
    def partitions(self) -> list[int]:
        with self._changed:
            return list(self._partitions)

    def _next(self) -> Item | None:
        with self._changed:
            now = self._clock()
            while self._waiting and self._waiting[0][0] <= now:
                item = heapq.heappop(self._waiting)[2]
                item.partition.held -= item.size
                self._make_ready(item, first=True)
            if self._stopped or self._in_flight >= self._max_in_flight or now < self._busy_until:
                return None
            for _ in range(len(self._turns)):
                part = self._turns[0]
                self._turns.rotate(-1)
                if part.ready and not part.gone:
                    item = part.ready.popleft()
                    self._ready -= 1
                    self._ready_bytes -= item.size
                    if not self._is_full(2):
                        self._changed.notify_all()
                    part.in_flight += 1
                    self._in_flight += 1
                    return item
            return None

    def _back(self, item: Item) -> None:
        part = item.partition
        self._make_ready(item, first=True)
        part.in_flight -= 1
        self._in_flight -= 1
        self._changed.notify_all()

    def _make_ready(self, item: Item, *, first: bool = False) -> None:
        if not item.partition.gone:
            ready = item.partition.ready
            (ready.appendleft if first else ready.append)(item)
            self._ready += 1
            self._ready_bytes += item.size

    def _let_go(self, part: Partition) -> None:
        """Nothing more of it is submitted."""
        part.gone = True
        self._ready -= len(part.ready)
        self._ready_bytes -= sum(item.size for item in part.ready)
        part.ready.clear()

    def _is_full(self, share: int) -> bool:
        """Whether as much as this share of what may be read ahead is ready."""
        return self._ready * share >= self._max_in_flight or self._ready_bytes * share >= READY_BYTES

    def _is_blocked(self, part: Partition) -> bool:
        return part.progress.span >= self._max_uncommitted or part.held >= HELD_BYTES

    def _done(self, item: Item, future: Future[Outcome]) -> None:
        self._settle(item, future)
        self.pump()

    def _settle(self, item: Item, future: Future[Outcome]) -> None:
        part = item.partition
        settled = not future.cancelled() and future.exception() is None
        with self._changed:
            self._in_flight -= 1
            part.in_flight -= 1
            if settled:
                part.progress.resolve(item.offset)
                behind = part.behind.get(item.order) if item.order is not None else None
                if behind:
                    following = behind.popleft()
                    part.held -= following.size
                    self._make_ready(following)
                elif behind is not None:
                    del part.behind[item.order]
            elif not part.gone:
                # It keeps its order: those behind it wait, the rest of the partition goes on.
                item.failures += 1
                wait = min(FIRST_BACKOFF * 2.0 ** min(item.failures - 1, 10), MAX_BACKOFF)
                part.held += item.size
                due = self._clock() + wait * (0.5 + 0.5 * self._jitter())
                heapq.heappush(self._waiting, (due, next(self._sequence), item))
            if part.gone:
                self._changed.notify_all()
