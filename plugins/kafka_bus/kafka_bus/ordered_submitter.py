"""Driver: the ordered submitter of one subscription. It hands records to the lane in order. No Kafka, no thread."""

from __future__ import annotations

import functools
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Literal, Protocol

from bus_core import BusyError, Message, Outcome, SubscriptionReference, UnknownSubscriptionError
from kafka_bus.pending import Partition, PendingRecord, ReadyQueue, RetryQueue

Ordering = Literal["key", "partition", "unordered"]

BUSY_PAUSE = 0.05
"""Seconds until a full lane is asked again."""

READY_BYTES = 8 << 20
"""Bytes of ready records that are read ahead, over all partitions."""

HELD_BYTES = 32 << 20
"""Bytes of one partition that may wait for a retry, or behind a record that does."""


class Submit(Protocol):
    """`bus_core.DriverContext.submit`, as far as it is used here."""

    def __call__(self, subscription: SubscriptionReference, message: Message) -> Future[Outcome]: ...


@dataclass(frozen=True, slots=True)
class SubmitPolicy:
    """The order and the bounds of a subscription.

    Attributes:
        ordering: `key` keeps records of one key in order, `partition` all of a partition, `unordered` none.
        max_in_flight: records that may be in the lane at once. About as many again are read ahead.
        max_uncommitted: records of a partition from its oldest unresolved one to its newest.
    """

    ordering: Ordering
    max_in_flight: int
    max_uncommitted: int


class OrderedSubmitter:
    """Takes records, submits them in order, and knows which offsets may be committed. Thread-safe.

    A consumer's thread calls it, and so do the threads on which deliveries complete (the event loop among them).

    Args:
        clock: the time in seconds, monotonic.
        jitter: a random number from 0 to 1, for back-offs.
    """

    def __init__(
        self,
        submit: Submit,
        subscription: SubscriptionReference,
        policy: SubmitPolicy,
        *,
        clock: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._submit = submit
        self._subscription = subscription
        self._policy = policy
        self._clock = clock
        # Guards all that follows. `_submit` is called without it, since a delivery may complete at once.
        self._changed_lock = threading.Condition()
        self._partitions: dict[int, Partition] = {}
        self._ready = ReadyQueue()
        self._retries = RetryQueue(jitter)
        self._in_flight = 0
        self._busy_until = 0.0
        self._stopped = False

    def assign(self, partitions: Iterable[int]) -> None:
        """Begin with these partitions: their records will be offered."""
        with self._changed_lock:
            for number in partitions:
                partition = self._partitions[number] = Partition(number)
                self._ready.add_partition(partition)

    def offer(self, partition: int, offset: int, key: bytes | None, message: Message) -> None:
        """Take a record that was read. Call `pump` to have it submitted."""
        with self._changed_lock:
            found = self._partitions.get(partition)
            if found is None:
                return  # The partition was revoked meanwhile. Its new owner reads the record.
            ordering = self._policy.ordering
            order_key = partition if ordering == "partition" else key if ordering == "key" else None
            record = PendingRecord(found, offset, order_key, message, len(message.payload))
            found.offsets.add(offset)
            if order_key in found.behind:
                found.behind[order_key].append(record)
                found.held_bytes += record.size
                return
            if order_key is not None:
                found.behind[order_key] = deque()
            self._ready.push(record)

    def pump(self) -> None:
        """Submit records until none is ready, `max_in_flight` is reached, or the lane is full."""
        while (record := self._next()) is not None:
            try:
                future = self._submit(self._subscription, record.message)
            except BusyError:
                with self._changed_lock:
                    self._busy_until = self._clock() + BUSY_PAUSE
                    self._take_back(record)
                return
            except UnknownSubscriptionError:
                self.stop()  # The subscription is being removed. Unresolved records stay uncommitted.
                with self._changed_lock:
                    self._take_back(record)
                return
            if future.done():
                self._settle(record, future)  # A callback would call `pump` again, one level deeper each time.
            else:
                future.add_done_callback(functools.partial(self._settle_and_pump, record))

    def stop(self) -> None:
        """Submit nothing more. Records in flight are still resolved."""
        with self._changed_lock:
            self._stopped = True

    def wait_room(self, timeout: float) -> bool:
        """Wait until more records should be read, at most `timeout` seconds. False: enough is read ahead."""
        with self._changed_lock:
            if not self._has_read_ahead(1):
                return True
            # Wait for half of it to go: a few large reads cost less than many small ones.
            return self._changed_lock.wait_for(lambda: not self._has_read_ahead(2), timeout)

    def wants_pause(self, partition: int) -> bool:
        """Whether no more should be read of this partition, because a record in it cannot be delivered."""
        with self._changed_lock:
            found = self._partitions.get(partition)
            return found is not None and self._is_blocked(found)

    def blocked(self) -> dict[int, int]:
        """The blocked partitions, each with its oldest unresolved offset."""
        with self._changed_lock:
            return {
                number: partition.offsets.oldest
                for number, partition in self._partitions.items()
                if self._is_blocked(partition) and partition.offsets.oldest is not None
            }

    def committable(self) -> dict[int, int]:
        """By partition, the offset to commit: all records before it are resolved."""
        with self._changed_lock:
            found = {number: partition.offsets.committable for number, partition in self._partitions.items()}
            return {number: offset for number, offset in found.items() if offset is not None}

    def position(self, partition: int) -> int | None:
        """The offset of the first unresolved record; None before the first record was read."""
        with self._changed_lock:
            found = self._partitions.get(partition)
            if found is None:
                return None
            return found.offsets.oldest if found.offsets.committable is None else found.offsets.committable

    def settle(self, partitions: Iterable[int], timeout: float) -> None:
        """Submit nothing more of these partitions, and wait at most `timeout` seconds for their records in flight."""
        with self._changed_lock:
            found = [self._partitions[number] for number in partitions if number in self._partitions]
            for partition in found:
                self._release(partition)
            self._changed_lock.wait_for(lambda: not any(partition.in_flight for partition in found), timeout)

    def drop(self, partitions: Iterable[int]) -> None:
        """Forget these partitions. Results that arrive later are ignored."""
        with self._changed_lock:
            for number in partitions:
                partition = self._partitions.pop(number, None)
                if partition is not None:
                    self._release(partition)
                    self._ready.remove_partition(partition)
            self._retries.drop_released()

    @property
    def partitions(self) -> list[int]:
        """The numbers of the assigned partitions."""
        with self._changed_lock:
            return list(self._partitions)

    def _next(self) -> PendingRecord | None:
        with self._changed_lock:
            now = self._clock()
            while (due := self._retries.pop_due(now)) is not None:
                self._ready.push_front(due)
            if self._stopped or self._in_flight >= self._policy.max_in_flight or now < self._busy_until:
                return None
            record = self._ready.pop()
            if record is not None:
                if not self._has_read_ahead(2):
                    self._changed_lock.notify_all()
                record.partition.in_flight += 1
                self._in_flight += 1
            return record

    def _take_back(self, record: PendingRecord) -> None:
        """Undo `_next`. The lock is held."""
        self._ready.push_front(record)
        record.partition.in_flight -= 1
        self._in_flight -= 1
        self._changed_lock.notify_all()

    def _release(self, partition: Partition) -> None:
        """Submit nothing more of the partition. The lock is held."""
        partition.released = True
        self._ready.clear(partition)

    def _has_read_ahead(self, share: int) -> bool:
        """Whether the ready records reach the bound divided by `share`. The lock is held."""
        return self._ready.count * share >= self._policy.max_in_flight or self._ready.bytes * share >= READY_BYTES

    def _is_blocked(self, partition: Partition) -> bool:
        """Whether an undeliverable record holds the partition up. The lock is held."""
        return partition.offsets.span >= self._policy.max_uncommitted or partition.held_bytes >= HELD_BYTES

    def _settle_and_pump(self, record: PendingRecord, future: Future[Outcome]) -> None:
        """The callback of a delivery, on the thread that completes it."""
        self._settle(record, future)
        self.pump()

    def _settle(self, record: PendingRecord, future: Future[Outcome]) -> None:
        partition = record.partition
        settled = not future.cancelled() and future.exception() is None
        with self._changed_lock:
            self._in_flight -= 1
            partition.in_flight -= 1
            if settled:
                self._resolve(record)
            elif not partition.released:
                # The record keeps its place: those of its order wait, the rest of the partition goes on.
                self._retries.push(record, self._clock())
            if partition.released:
                self._changed_lock.notify_all()

    def _resolve(self, record: PendingRecord) -> None:
        """Resolve the record, and make the next one of its order ready. The lock is held."""
        partition = record.partition
        partition.offsets.resolve(record.offset)
        behind = partition.behind.get(record.order_key) if record.order_key is not None else None
        if behind:
            following = behind.popleft()
            partition.held_bytes -= following.size
            self._ready.push(following)
        elif behind is not None:
            del partition.behind[record.order_key]
