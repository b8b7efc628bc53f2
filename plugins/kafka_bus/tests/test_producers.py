"""The producers against librdkafka's own mock cluster, and the limits of topics."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterator
from typing import Any

import pytest
from confluent_kafka.admin import AdminClient

import kafka_bus.limits
from bus_core import Message, TemporaryError
from kafka_bus.clients import Clients
from kafka_bus.codec import to_record
from kafka_bus.failure import Trouble
from kafka_bus.limits import TopicLimits
from kafka_bus.producer import Producer
from kafka_bus.producers import Producers
from kafka_bus.settings import KafkaSettings

LOG = logging.getLogger("kafka_bus.tests")
LOG.setLevel(logging.CRITICAL)


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    mock = AdminClient({"test.mock.num.brokers": "1", "bootstrap.servers": "mock", "logger": LOG})
    yield ",".join(f"{broker.host}:{broker.port}" for broker in mock.list_topics(timeout=10).brokers.values())
    del mock


def clients(brokers: str, logger: Any = LOG, **values: object) -> Clients:
    settings = KafkaSettings.model_validate({"brokers": brokers, **values})
    return Clients(settings, Trouble(brokers), logger, LOG)


class Topics(dict[str, int]):
    """The limits that the brokers would tell."""

    def max_message_bytes(self, name: str) -> int:
        return self[name]


class Lines:
    """A log that keeps its events."""

    def __init__(self) -> None:
        self.events: list[str] = []

    def exception(self, event: str, **_: object) -> None:
        self.events.append(event)


class FailingOnce:
    """A client whose first poll raises, as it does if a callback raises."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self._has_failed = False

    def produce(self, *arguments: Any, **options: Any) -> None:
        self._client.produce(*arguments, **options)

    def flush(self, timeout: float) -> None:
        self._client.flush(timeout)

    def poll(self, timeout: float) -> int:
        if not self._has_failed:
            self._has_failed = True
            raise RuntimeError("a callback raised")
        return int(self._client.poll(timeout))


class FailingClients(Clients):
    def producer(self, properties: Any) -> Any:
        return FailingOnce(super().producer(properties))


def test_a_poll_that_fails_ends_no_acknowledgements(cluster: str) -> None:
    lines = Lines()
    usual = clients(cluster, lines)
    producer = Producer(FailingClients(usual.settings, usual.trouble, lines, LOG))
    record = to_record(Message({}, b"x"))

    async def two() -> None:
        for _ in range(2):
            await asyncio.wait_for(producer.send("guarded", record), 5)

    try:
        asyncio.run(two())
        assert lines.events == ["polling for acknowledgements failed and goes on"]
    finally:
        producer.close(10)


def test_a_topic_that_is_forgotten_leaves_nothing(cluster: str) -> None:
    topics = Topics(small=10_000, other=10_000, usual=1_048_588)
    limits = TopicLimits(topics)
    producers = Producers(clients(cluster), limits)

    async def all_of_them() -> None:
        for topic in topics:
            await producers.send(topic, to_record(Message({}, b"x")))

    try:
        for topic in topics:
            limits.learn(topic)
        asyncio.run(all_of_them())
        assert producers.batch_sizes == [10_000, 1_000_000]
        producers.forget("small")
        assert producers.batch_sizes == [10_000, 1_000_000], "the other small topic still needs it"
        producers.forget("other")
        assert producers.batch_sizes == [1_000_000]
        producers.forget("usual")
        assert producers.batch_sizes == [1_000_000], "topics without a known limit use it"
        assert limits.values() == set()
    finally:
        producers.close(time.monotonic() + 10)


def test_limits_are_bounded_where_nobody_tells_of_a_deletion(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kafka_bus.limits, "MAX_TOPICS", 3)
    limits = TopicLimits(Topics({f"topic-{number}": number for number in range(10)}))
    for number in (0, 1, 2, 0, 3):
        limits.learn(f"topic-{number}")
    assert [limits.get(f"topic-{number}") for number in range(4)] == [0, None, 2, 3], "the oldest goes first"


def test_a_limit_is_asked_for_again_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kafka_bus.limits, "REFRESH_EVERY", 0.2)
    topics = Topics(orders=1000)
    limits = TopicLimits(topics)
    assert limits.refresh("orders"), "it was unknown"
    topics["orders"] = 2000
    assert not limits.refresh("orders"), "it was asked for just now"
    deadline = time.monotonic() + 5
    while not limits.refresh("orders"):
        assert time.monotonic() < deadline
    assert limits.get("orders") == 2000


def test_a_producer_that_a_fatal_error_has_ended_is_replaced(cluster: str) -> None:
    producers = Producers(clients(cluster), TopicLimits(Topics()))
    record = to_record(Message({}, b"x"))
    try:
        asyncio.run(producers.send("fatal", record))
        (spent,) = producers._producers.values()
        spent.is_spent = True
        asyncio.run(producers.send("fatal", record))
        assert list(producers._producers.values()) != [spent]
    finally:
        producers.close(time.monotonic() + 10)


def test_more_than_may_wait_is_refused_at_once() -> None:
    nobody = "127.0.0.1:9"
    producer = Producer(clients(nobody, produce_timeout=0.5, queue_bytes=1 << 20))

    async def overfill() -> list[BaseException | None]:
        record = to_record(Message({}, b"x" * 100_000))
        return await asyncio.gather(*(producer.send("orders", record) for _ in range(30)), return_exceptions=True)

    try:
        began = time.monotonic()
        answers = asyncio.run(overfill())
        assert time.monotonic() - began < 5
        assert all(isinstance(answer, TemporaryError) for answer in answers)
        assert any("too many events wait" in str(answer) for answer in answers)
    finally:
        producer.close(10)


def test_topics_with_a_small_limit_share_no_batch_with_others(cluster: str) -> None:
    limits = TopicLimits(Topics(small=10_000, usual=1_048_588))
    producers = Producers(clients(cluster), limits)
    limits.learn("small")
    limits.learn("usual")

    async def both() -> None:
        for topic in ("small", "usual", "unknown"):
            await producers.send(topic, to_record(Message({}, b"x")))

    try:
        asyncio.run(both())
        assert producers.batch_sizes == [10_000, 1_000_000]
    finally:
        producers.close(time.monotonic() + 10)
