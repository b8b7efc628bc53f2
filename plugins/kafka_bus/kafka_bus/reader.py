"""Driver: the reader of a consumer loop. It takes records to the ordered submitter, and pauses what must wait."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from typing import Any

from confluent_kafka import Consumer, TopicPartition

from bus_core import ForwardedHeaders, Message
from kafka_bus.clients import Clients
from kafka_bus.codec import to_message
from kafka_bus.error_codes import LocalError
from kafka_bus.names import ConsumerIdentity
from kafka_bus.ordered_submitter import OrderedSubmitter

_POLL = 0.1
_BATCH = 200
_GATHER = 0.005
"""Seconds that the first event of a batch waits for others. Fewer, larger batches cost less."""

_PATIENCE = 1.0
"""Seconds without reading until partitions are paused. The group must hear of its member, so the consumer has to be
polled; and a subscriber this slow can afford that paused records are fetched twice."""


class Reader:
    """Reads one consumer. Not thread-safe: for the consumer loop's thread, except `stop`."""

    def __init__(
        self,
        clients: Clients,
        consumer: Consumer,
        identity: ConsumerIdentity,
        submitter: OrderedSubmitter,
        forwarded: ForwardedHeaders,
    ) -> None:
        self._trouble = clients.trouble
        self._log = clients.logger
        self._consumer = consumer
        self._identity = identity
        self._submitter = submitter
        self._forwarded = forwarded
        self._paused: set[int] = set()
        self._fresh: set[int] = set()  # Just assigned. librdkafka remembers whether they were paused before.
        self._read_at = 0.0
        self._stopped = threading.Event()

    @property
    def paused(self) -> set[int]:
        """The partitions that are paused."""
        return self._paused

    def stop(self) -> None:
        """Hand no more records to the submitter. Safe from any thread; returns at once."""
        self._stopped.set()

    def read(self) -> None:
        """Read a batch and submit it. Blocks for about 0.1 s if there is none."""
        # A full submitter is left to drain without reading. Pausing is the second choice: librdkafka throws away what
        # it has fetched of a paused partition, and fetches it again.
        if not self._stopped.is_set() and not self._submitter.wait_room(_POLL):
            if time.monotonic() - self._read_at < _PATIENCE:
                self._submitter.pump()
                return
            self._pause_and_resume()
        self._read_at = time.monotonic()
        # `consume` alone would wait until the batch is full: an event would take 50 ms in the median.
        first = self._consumer.poll(_POLL)
        if first is not None:
            self._take(first)
            for record in self._consumer.consume(_BATCH - 1, _GATHER):
                self._take(record)
        self._submitter.pump()
        self._pause_and_resume()

    def assigned(self, partitions: Iterable[int]) -> None:
        """The group gave these partitions to this member."""
        self._fresh.update(partitions)

    def revoked(self, partitions: Iterable[int]) -> None:
        """The group took these partitions away."""
        self._paused = self._paused.difference(partitions)

    def to_event(self, record: Any) -> Message:
        """The event of a record. A record with unreadable headers becomes an event without headers.

        Raising would lose the records that were read in the same batch: an offset that was never offered looks like
        one that compaction removed.
        """
        try:
            return to_message(record.value(), record.headers() or (), self._forwarded)
        except Exception as error:  # The client raises SystemError for a header name that is not UTF-8.
            place = f"partition {record.partition()} at offset {record.offset()}"
            self._log.warning(
                "a record's headers cannot be read", topic=self._identity.topic, place=place, detail=str(error)
            )
            return Message({}, record.value() or b"")

    def _take(self, record: Any) -> None:
        error = record.error()
        if error is None:
            if not self._stopped.is_set():  # A record that is not offered is never committed, and is read again.
                self._submitter.offer(record.partition(), record.offset(), record.key(), self.to_event(record))
        elif error.code() != LocalError.PARTITION_EOF:
            self._trouble.note(error)
            detail = self._trouble.sentence(error)
            self._log.warning("reading failed for now", subscription=str(self._identity.subscription), detail=detail)

    def _pause_and_resume(self) -> None:
        """Pause the partitions of which enough was read, and resume those that have room again."""
        mine = set(self._submitter.partitions)
        late = time.monotonic() - self._read_at >= _PATIENCE
        full = not self._submitter.wait_room(0) and (late or mine == self._paused)
        want = mine if full else {number for number in mine if self._submitter.wants_pause(number)}
        fresh, self._fresh = self._fresh & mine, self._fresh - mine
        pause, resume = want - (self._paused - fresh), ((self._paused | fresh) & mine) - want
        if pause:
            self._consumer.pause([TopicPartition(self._identity.topic, number) for number in pause])
        if resume:
            self._consumer.resume([TopicPartition(self._identity.topic, number) for number in resume])
        self._paused = want
