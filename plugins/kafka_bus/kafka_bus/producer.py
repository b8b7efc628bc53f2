"""The producer of a worker: an event in, an acknowledgement awaited on the event loop."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka import Message as KafkaMessage
from confluent_kafka import Producer as Client

from bus_core import MessageTooLargeError, TemporaryError
from kafka_bus.codec import Record
from kafka_bus.failure import Trouble
from kafka_bus.settings import KafkaSettings

BATCH_BYTES = 1_000_000
"""librdkafka's own `batch.size`."""

_POLL = 0.001
"""Seconds between two looks for acknowledgements. A thread that waits for them would have to get the interpreter's lock
from the event loop for every batch (32 senders: 5.0k events/s at 210 µs with it, 5.5k at 157 µs without)."""


class Producer:
    """Idempotent, `acks=all`. For one event loop; only `close` may come from another thread, after the last `send`.

    Args:
        batch: the largest batch in bytes. A broker that finds a batch larger than its topic allows refuses all events
            in it, so topics with a small limit have producers of their own.
    """

    def __init__(self, settings: KafkaSettings, trouble: Trouble, logger: Any, batch: int = BATCH_BYTES) -> None:
        timeout = round(settings.produce_timeout * 1000)
        config = {
            **settings.client_config(),
            "enable.idempotence": True,
            "acks": "all",
            "message.timeout.ms": timeout,
            "request.timeout.ms": min(timeout, 30_000),
            "linger.ms": 1,
            "batch.size": batch,
            "message.max.bytes": 100_000_000,  # the topic's limit counts, and the broker tells it
            "queue.buffering.max.kbytes": settings.queue_bytes >> 10,
            "queue.buffering.max.messages": 100_000,
            "error_cb": trouble.note,
            "logger": logger,
            **settings.config,
        }
        self._client = Client(config)
        self._trouble = trouble
        self._timeout = settings.produce_timeout
        self._waiting = 0
        self._looks = False
        self.is_spent = False
        """A fatal error has ended it: librdkafka takes nothing more."""

    async def send(self, topic: str, record: Record) -> None:
        """Produce, and return when the brokers have acknowledged.

        Raises:
            TemporaryError: no acknowledgement within `produce_timeout`, too few replicas, or too much is waiting.
            MessageTooLargeError: larger than the topic allows. PermanentError: not allowed.
        """
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[None] = loop.create_future()

        def acknowledged(error: KafkaError | None, _: KafkaMessage) -> None:
            self._waiting -= 1
            self.is_spent = self.is_spent or (error is not None and error.fatal())
            if answer.done():
                return  # its sender has gone
            if error is None:
                answer.set_result(None)
            else:
                answer.set_exception(KafkaException(error))

        try:
            self._client.produce(topic, record.value, record.key, headers=record.headers, on_delivery=acknowledged)
        except BufferError:
            raise TemporaryError("too many events wait for an acknowledgement of the brokers") from None
        except KafkaException as error:
            self.is_spent = self.is_spent or error.args[0].code() == KafkaError._FATAL
            raise self._trouble.as_error(f"topic {topic}", error) from None
        self._waiting += 1
        if not self._looks:
            self._looks = True
            loop.call_later(_POLL, self._look, loop)
        try:
            await answer
        except KafkaException as error:
            raise self._trouble.as_error(f"topic {topic}", error) from None

    def close(self) -> None:
        """Wait for what is on its way, at most `produce_timeout`."""
        self._client.flush(self._timeout)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        """Hear of what was acknowledged, and look again while there is something to wait for."""
        self._client.poll(0)
        if self._waiting:
            loop.call_later(_POLL, self._look, loop)
        else:
            self._looks = False


class Producers:
    """The producer for each limit, and the limits of topics. Nearly always that is one producer.

    `send` is for the event loop only; `learn`, `connect` and `close` may come from any thread.
    """

    def __init__(self, settings: KafkaSettings, trouble: Trouble, logger: Any) -> None:
        self._settings = settings
        self._trouble = trouble
        self._logger = logger
        self._limits: dict[str, int] = {}
        self._producers: dict[int, Producer] = {}
        self._lock = threading.Lock()

    def limit(self, topic: str) -> int | None:
        """What `learn` was told last; None when nothing was."""
        return self._limits.get(topic)

    def learn(self, topic: str, limit: int) -> None:
        """The topic's limit in bytes is known, or has changed."""
        self._limits[topic] = limit

    def connect(self, topic: str) -> None:
        """Have the topic's producer log in now: the first event would wait a second for that."""
        self._producer(topic)

    def forget(self, topic: str) -> None:
        self._limits.pop(topic, None)

    async def send(self, topic: str, record: Record) -> None:
        """See `Producer.send`; an event over the topic's limit is refused before it is produced."""
        limit = self._limits.get(topic, BATCH_BYTES)
        if record.size > limit and topic in self._limits:
            raise MessageTooLargeError(f"the event has about {record.size} bytes and its topic allows {limit}")
        await self._producer(topic).send(topic, record)

    def close(self) -> None:
        for producer in list(self._producers.values()):
            producer.close()

    def _producer(self, topic: str) -> Producer:
        batch = min(self._limits.get(topic, BATCH_BYTES), BATCH_BYTES)
        producer = self._producers.get(batch)
        if producer is None or producer.is_spent:
            with self._lock:
                producer = self._producers.get(batch)
                if producer is None or producer.is_spent:
                    producer = Producer(self._settings, self._trouble, self._logger, batch)
                    self._producers[batch] = producer
        return producer
