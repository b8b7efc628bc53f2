"""Driver: the producers of a worker. Nearly always that is one."""

from __future__ import annotations

import threading
import time

from bus_core import MessageTooLargeError
from kafka_bus.clients import Clients
from kafka_bus.codec import Record
from kafka_bus.limits import TopicLimits
from kafka_bus.producer import BATCH_BYTES, Producer


class Producers:
    """One producer for each batch size that the topics' limits ask for.

    `send` is for the event loop only; all else is safe from any thread.
    """

    def __init__(self, clients: Clients, limits: TopicLimits) -> None:
        self._clients = clients
        self._limits = limits
        self._lock = threading.Lock()  # guards changes of `_producers`
        self._producers: dict[int, Producer] = {}  # by batch size

    def connect(self, topic: str) -> None:
        """Have the topic's producer log in now: the first event would wait a second for that."""
        self._producer(topic)

    def forget(self, topic: str) -> None:
        """Drop the topic's limit, and the producers that no known topic needs.

        A dropped producer still acknowledges what it has sent: its poll on the event loop keeps it alive until then.
        """
        self._limits.forget(topic)
        needed = {BATCH_BYTES, *(min(limit, BATCH_BYTES) for limit in self._limits.values())}
        with self._lock:
            self._producers = {batch: producer for batch, producer in self._producers.items() if batch in needed}

    async def send(self, topic: str, record: Record) -> None:
        """See `Producer.send`. An event over the topic's limit is rejected before it is produced."""
        limit = self._limits.get(topic)
        if limit is not None and record.size > limit:
            raise MessageTooLargeError(f"the event has about {record.size} bytes, and its topic allows {limit}")
        await self._producer(topic).send(topic, record)

    def close(self, deadline: float) -> None:
        """Wait for the acknowledgements of all events.

        Args:
            deadline: monotonic time in seconds, until which it waits. Events without an acknowledgement by then were
                not answered 202.
        """
        for producer in list(self._producers.values()):
            producer.close(max(deadline - time.monotonic(), 0.0))

    @property
    def batch_sizes(self) -> list[int]:
        """The batch sizes in bytes for which there are producers, ascending."""
        return sorted(self._producers)

    def _producer(self, topic: str) -> Producer:
        batch = min(self._limits.get(topic) or BATCH_BYTES, BATCH_BYTES)
        producer = self._producers.get(batch)
        if producer is None or producer.is_spent:
            with self._lock:
                producer = self._producers.get(batch)
                if producer is None or producer.is_spent:
                    producer = self._producers[batch] = Producer(self._clients, batch)
        return producer
