"""Driver: a producer. It sends an event and awaits the brokers' acknowledgement on the event loop."""

from __future__ import annotations

import asyncio

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka import Message as KafkaMessage

from bus_core import TemporaryError
from kafka_bus.admin import error_code
from kafka_bus.clients import Clients
from kafka_bus.codec import Record
from kafka_bus.error_codes import LocalError

BATCH_BYTES = 1_000_000
"""librdkafka's own `batch.size`."""

_POLL = 0.001
"""Seconds between two polls for acknowledgements. A thread that waits for them would have to get the interpreter's lock
from the event loop for every batch (32 senders: 5.0k events/s at 210 µs with it, 5.5k at 157 µs without)."""

_POLL_AFTER_FAILURE = 0.1
"""Seconds until the next poll after one that raised: each is logged."""


class Producer:
    """Idempotent, `acks=all`. For one event loop; only `close` may come from another thread, after the last `send`.

    Args:
        batch: the largest batch in bytes. If a batch is larger than its topic allows, the broker rejects all events in
            it, so topics with a small limit have producers of their own.
    """

    def __init__(self, clients: Clients, batch: int = BATCH_BYTES) -> None:
        settings = clients.settings
        timeout = round(settings.produce_timeout * 1000)
        self._client = clients.producer(
            {
                "enable.idempotence": True,
                "acks": "all",
                "message.timeout.ms": timeout,
                "request.timeout.ms": min(timeout, 30_000),
                "linger.ms": 1,
                "batch.size": batch,
                "message.max.bytes": 100_000_000,  # The topic's limit counts. The broker applies it.
                "queue.buffering.max.kbytes": settings.queue_bytes >> 10,
                "queue.buffering.max.messages": 100_000,
            }
        )
        self._trouble = clients.trouble
        self._log = clients.logger
        self._waiting = 0  # events without an acknowledgement
        self._is_polling = False
        self.is_spent = False
        """A fatal error ended it: librdkafka accepts no more events."""

    async def send(self, topic: str, record: Record) -> None:
        """Produce the event, and return when the brokers have acknowledged it.

        Raises:
            TemporaryError: no acknowledgement within `produce_timeout`, too few replicas, or a full queue.
            MessageTooLargeError: larger than the topic allows. PermanentError: the bus lacks the permission.
        """
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[None] = loop.create_future()

        def acknowledged(error: KafkaError | None, _: KafkaMessage) -> None:
            self._waiting -= 1
            self.is_spent = self.is_spent or (error is not None and error.fatal())
            if answer.done():
                return  # The sender closed its connection.
            if error is None:
                answer.set_result(None)
            else:
                answer.set_exception(KafkaException(error))

        try:
            self._client.produce(topic, record.value, record.key, headers=record.headers, on_delivery=acknowledged)
        except BufferError:
            raise TemporaryError("too many events wait for an acknowledgement of the brokers") from None
        except KafkaException as error:
            self.is_spent = self.is_spent or error_code(error) == LocalError.FATAL
            raise self._trouble.as_error(f"topic {topic}", error) from None
        self._waiting += 1
        if not self._is_polling:
            self._is_polling = True
            loop.call_later(_POLL, self._poll, loop)
        try:
            await answer
        except KafkaException as error:
            raise self._trouble.as_error(f"topic {topic}", error) from None

    def close(self, timeout: float) -> None:
        """Wait for the acknowledgements of all events, at most `timeout` seconds."""
        self._client.flush(timeout)

    def _poll(self, loop: asyncio.AbstractEventLoop) -> None:
        """Have librdkafka call the callbacks of acknowledged events; repeat while events wait."""
        pause = _POLL
        try:
            self._client.poll(0)
        except Exception:
            # librdkafka raises what a callback raised. Other events still wait, so polling must go on.
            self._log.exception("polling for acknowledgements failed and goes on")
            pause = _POLL_AFTER_FAILURE
        if self._waiting:
            loop.call_later(pause, self._poll, loop)
        else:
            self._is_polling = False
