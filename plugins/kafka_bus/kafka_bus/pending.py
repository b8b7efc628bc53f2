"""Driver: records that were read and are not resolved, and the queues they wait in. Pure state, no Kafka, no lock."""

from __future__ import annotations

import heapq
import itertools
from collections import deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field

from bus_core import Message
from kafka_bus.offset_tracker import OffsetTracker

FIRST_BACKOFF = 1.0
"""Seconds until the first retry; each further one doubles it."""

MAX_BACKOFF = 30.0
"""The longest back-off, in seconds."""


@dataclass(slots=True, eq=False)
class PendingRecord:
    """One record that was read. Records with the same `order_key` stay in order; None means no order."""

    partition: Partition
    offset: int
    order_key: Hashable
    message: Message
    size: int
    failures: int = 0


@dataclass(slots=True, eq=False)
class Partition:
    """The records of one assigned partition."""

    number: int
    offsets: OffsetTracker = field(default_factory=OffsetTracker)
    ready: deque[PendingRecord] = field(default_factory=deque)
    behind: dict[Hashable, deque[PendingRecord]] = field(default_factory=dict)
    """By order key: the records that wait until the one before them is resolved."""
    held_bytes: int = 0
    """Bytes of the records that wait behind another one or for a retry."""
    in_flight: int = 0
    released: bool = False
    """Whether the partition was given up. Nothing of it is submitted any more."""


class ReadyQueue:
    """The records that may be submitted now. Partitions take turns. Not thread-safe."""

    def __init__(self) -> None:
        self._turns: deque[Partition] = deque()
        self.count = 0
        self.bytes = 0

    def add_partition(self, partition: Partition) -> None:
        self._turns.append(partition)

    def remove_partition(self, partition: Partition) -> None:
        """Drop the partition and its records."""
        self.clear(partition)
        self._turns.remove(partition)

    def clear(self, partition: Partition) -> None:
        """Drop the partition's records."""
        self.count -= len(partition.ready)
        self.bytes -= sum(record.size for record in partition.ready)
        partition.ready.clear()

    def push(self, record: PendingRecord) -> None:
        """Add a record at the end of its partition's queue, unless the partition is released."""
        if not record.partition.released:
            record.partition.ready.append(record)
            self.count += 1
            self.bytes += record.size

    def push_front(self, record: PendingRecord) -> None:
        """Add a record at the front of its partition's queue, unless the partition is released."""
        if not record.partition.released:
            record.partition.ready.appendleft(record)
            self.count += 1
            self.bytes += record.size

    def pop(self) -> PendingRecord | None:
        """Take the next record of the partition whose turn it is; None if no record is ready."""
        for _ in range(len(self._turns)):
            partition = self._turns[0]
            self._turns.rotate(-1)
            if partition.ready:
                record = partition.ready.popleft()
                self.count -= 1
                self.bytes -= record.size
                return record
        return None


class RetryQueue:
    """The records whose delivery failed, by the time of their next try. Not thread-safe.

    Args:
        jitter: a random number from 0 to 1. It shortens each back-off by up to half.
    """

    def __init__(self, jitter: Callable[[], float]) -> None:
        self._jitter = jitter
        self._heap: list[tuple[float, int, PendingRecord]] = []
        self._sequence = itertools.count()

    def push(self, record: PendingRecord, now: float) -> None:
        """Count a failure of the record and schedule its next try. `now` is in seconds."""
        record.failures += 1
        record.partition.held_bytes += record.size
        backoff = min(FIRST_BACKOFF * 2.0 ** min(record.failures - 1, 10), MAX_BACKOFF)
        due = now + backoff * (0.5 + 0.5 * self._jitter())
        heapq.heappush(self._heap, (due, next(self._sequence), record))

    def pop_due(self, now: float) -> PendingRecord | None:
        """Take a record whose time has come; None if there is none."""
        if not self._heap or self._heap[0][0] > now:
            return None
        record = heapq.heappop(self._heap)[2]
        record.partition.held_bytes -= record.size
        return record

    def drop_released(self) -> None:
        """Drop the records of released partitions."""
        self._heap = [entry for entry in self._heap if not entry[2].partition.released]
        heapq.heapify(self._heap)
