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


@dataclass(slots=True, eq=False)
class Item:
    """One record on its way."""

    partition: Partition
    offset: int
    order: Any
    message: Message
    failures: int = 0


@dataclass(slots=True, eq=False)
class Partition:
    """What is known of one assigned partition."""

    number: int
    progress: Progress = field(default_factory=Progress)
    ready: deque[Item] = field(default_factory=deque)
    behind: dict[Any, deque[Item]] = field(default_factory=dict)  # by order: what waits for the one before it
    held: int = 0  # read, not submitted: ready, behind or waiting for another try
    in_flight: int = 0
    gone: bool = False


class Flow:
    """Takes records in, submits them in order, and knows what may be committed. Thread-safe.

    Args:
        submit: hands an event to its lane; see `bus_core.DriverContext.submit`.
        ordering: `key`: those of one key one after the other; `partition`: all of a partition; `unordered`: none.
        max_in_flight: how many may be with the lane at once; as many again are read ahead.
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
            item = Item(part, offset, order, message)
            part.progress.add(offset)
            part.held += 1
            if order is None:
                part.ready.append(item)
            elif order in part.behind:
                part.behind[order].append(item)
            else:
                part.behind[order] = deque()
                part.ready.append(item)

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
            future.add_done_callback(lambda done, item=item: self._done(item, done))  # type: ignore[misc]

    def stop(self) -> None:
        """Submit nothing more. What is in flight is still resolved."""
        with self._changed:
            self._stopped = True

    def wants_pause(self, partition: int) -> bool:
        """Whether no more should be read of this partition for now."""
        with self._changed:
            part = self._partitions.get(partition)
            return part is not None and (
                part.progress.span >= self._max_uncommitted or part.held >= self._max_in_flight
            )

    def blocked(self) -> dict[int, int]:
        """The partitions that wait for their oldest unresolved record, and its offset."""
        with self._changed:
            return {
                number: part.progress.oldest
                for number, part in self._partitions.items()
                if part.progress.span >= self._max_uncommitted and part.progress.oldest is not None
            }

    def committable(self) -> dict[int, int]:
        """By partition the offset up to which everything is resolved."""
        with self._changed:
            found = {number: part.progress.committable for number, part in self._partitions.items()}
            return {number: offset for number, offset in found.items() if offset is not None}

    def settle(self, partitions: Iterable[int], timeout: float) -> None:
        """Submit nothing more of these partitions, and wait for what of them is in flight."""
        with self._changed:
            parts = [self._partitions[number] for number in partitions if number in self._partitions]
            for part in parts:
                part.gone = True
            self._changed.wait_for(lambda: not any(part.in_flight for part in parts), timeout)

    def drop(self, partitions: Iterable[int]) -> None:
        """Forget these partitions: results that come later are ignored."""
        with self._changed:
            for number in partitions:
                part = self._partitions.pop(number, None)
                if part is not None:
                    part.gone = True
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
                item.partition.ready.appendleft(item)
            if self._stopped or self._in_flight >= self._max_in_flight or now < self._busy_until:
                return None
            for _ in range(len(self._turns)):
                part = self._turns[0]
                self._turns.rotate(-1)
                if part.ready and not part.gone:
                    item = part.ready.popleft()
                    part.held -= 1
                    part.in_flight += 1
                    self._in_flight += 1
                    return item
            return None

    def _back(self, item: Item) -> None:
        part = item.partition
        part.ready.appendleft(item)
        part.held += 1
        part.in_flight -= 1
        self._in_flight -= 1
        self._changed.notify_all()

    def _done(self, item: Item, future: Future[Outcome]) -> None:
        part = item.partition
        settled = not future.cancelled() and future.exception() is None
        with self._changed:
            self._in_flight -= 1
            part.in_flight -= 1
            if settled:
                part.progress.resolve(item.offset)
                behind = part.behind.get(item.order) if item.order is not None else None
                if behind:
                    part.ready.append(behind.popleft())
                elif behind is not None:
                    del part.behind[item.order]
            elif not part.gone:
                # It keeps its order: those behind it wait, the rest of the partition goes on.
                item.failures += 1
                wait = min(FIRST_BACKOFF * 2.0 ** min(item.failures - 1, 10), MAX_BACKOFF)
                part.held += 1
                due = self._clock() + wait * (0.5 + 0.5 * self._jitter())
                heapq.heappush(self._waiting, (due, next(self._sequence), item))
            if part.gone:
                self._changed.notify_all()
        self.pump()
