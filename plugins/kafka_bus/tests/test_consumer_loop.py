"""The consumer loop against librdkafka's own mock cluster: the wire without a server."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any

import pytest
from confluent_kafka import Consumer, ConsumerGroupTopicPartitions, TopicPartition
from confluent_kafka.admin import AdminClient

import kafka_bus.blocked_mark
import kafka_bus.consumer_loop
from bus_core import ForwardedHeaders, Gauge, Message, Outcome, SubscriptionReference
from kafka_bus.blocked_mark import MARK, MarkAsker
from kafka_bus.blocked_reporter import BlockedReporter, Report
from kafka_bus.clients import Clients
from kafka_bus.codec import to_record
from kafka_bus.consumer_loop import ConsumerLoop
from kafka_bus.failure import Trouble
from kafka_bus.names import ConsumerIdentity
from kafka_bus.ordered_submitter import OrderedSubmitter, SubmitPolicy
from kafka_bus.producer import Producer
from kafka_bus.settings import KafkaSettings

LOG = logging.getLogger("kafka_bus.tests")
LOG.setLevel(logging.CRITICAL)


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    mock = AdminClient({"test.mock.num.brokers": "1", "bootstrap.servers": "mock", "logger": LOG})
    yield ",".join(f"{broker.host}:{broker.port}" for broker in mock.list_topics(timeout=10).brokers.values())
    del mock


ONE = SubscriptionReference("one")
BLOCKED = Gauge("bus_kafka_test_blocked", "Blocked partitions", ["subscription"])


def clients(brokers: str, **values: object) -> Clients:
    settings = KafkaSettings.model_validate({"brokers": brokers, "commit_interval": 0.1, **values})
    return Clients(settings, Trouble(brokers), LOG, LOG)


class Received:
    """The events that a loop submits. They are settled at once, or when `open` is called."""

    def __init__(self, *, is_open: bool = True) -> None:
        self.bodies: list[bytes] = []
        self._is_open = is_open
        self._held: list[Future[Outcome]] = []

    def submit(self, subscription: SubscriptionReference, message: Message) -> Future[Outcome]:
        self.bodies.append(message.payload)
        done: Future[Outcome] = Future()
        if self._is_open:
            done.set_result(Outcome.DELIVERED)
        else:
            self._held.append(done)
        return done

    def open(self) -> None:
        self._is_open = True
        for done in self._held:
            done.set_result(Outcome.DELIVERED)


class Said:
    """The reports of a loop: the texts, and None where one is withdrawn."""

    def __init__(self) -> None:
        self.texts: list[str | None] = []

    def __call__(self, subscription: SubscriptionReference, reason: str = "", message: str = "") -> None:
        assert subscription == ONE
        assert reason == ("Blocked" if message else "")
        self.texts.append(message or None)


def loop(
    made: Clients,
    topic: str,
    received: Received,
    report: Report | None = None,
    max_uncommitted: int = 100,
) -> ConsumerLoop:
    identity = ConsumerIdentity(topic, f"{topic}.one", ONE)
    policy = SubmitPolicy("partition", max_in_flight=50, max_uncommitted=max_uncommitted)
    return ConsumerLoop(
        made,
        identity,
        OrderedSubmitter(received.submit, ONE, policy),
        ForwardedHeaders(),
        MarkAsker(made, threading.Event()),
        BlockedReporter(ONE, topic, report or Said(), BLOCKED),
    )


def send(producer: Producer, topic: str, *bodies: bytes) -> None:
    async def all_of_them() -> None:
        events = [Message({"ce-partitionkey": str(number)}, body) for number, body in enumerate(bodies)]
        await asyncio.gather(*(producer.send(topic, to_record(event)) for event in events))

    asyncio.run(all_of_them())


def until(condition: Callable[[], bool], timeout: float = 15.0) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline
        threading.Event().wait(0.01)


def committed(brokers: str, topic: str) -> int:
    """What the group has committed, over all partitions."""
    asked = ConsumerGroupTopicPartitions(f"{topic}.one", [TopicPartition(topic, number) for number in range(4)])
    admin = AdminClient({"bootstrap.servers": brokers, "logger": LOG})
    (future,) = admin.list_consumer_group_offsets([asked]).values()
    return sum(max(entry.offset, 0) for entry in future.result(10).topic_partitions)


def marks(consumer: Consumer, topic: str) -> dict[int, int]:
    """The marked partitions of the consumer's group, and their offsets."""
    found = consumer.committed([TopicPartition(topic, number) for number in range(4)], timeout=5)
    return {entry.partition: entry.offset for entry in found if entry.metadata == MARK and entry.error is None}


def test_what_was_acknowledged_is_read_once_and_committed(cluster: str) -> None:
    producer = Producer(clients(cluster))
    try:
        sent = [b"%d" % number for number in range(100)]
        send(producer, "orders", *sent)
        received = Received()
        one = loop(clients(cluster), "orders", received)
        one.start()
        until(lambda: len(received.bodies) == 100)
        one.close()
        assert sorted(received.bodies) == sorted(sent)
        assert committed(cluster, "orders") == 100
    finally:
        producer.close(10)


def test_a_partition_that_was_paused_goes_on_after_it_went_and_came_back(
    cluster: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A slow subscriber, and a second host that comes and goes: as in every rolling update."""
    monkeypatch.setattr(kafka_bus.consumer_loop, "REVOKE_TIMEOUT", 0.1)
    producer = Producer(clients(cluster))
    sent = {b"%d" % number for number in range(2000)}
    slow, prompt = Received(is_open=False), Received()
    first, second = loop(clients(cluster), "paused", slow), loop(clients(cluster), "paused", prompt)
    try:
        send(producer, "paused", *sent)
        first.start()
        until(lambda: len(first.paused) == 4, 30)
        second.start()
        until(lambda: len(prompt.bodies) > 0, 30)
        second.close()
        slow.open()
        until(lambda: {*slow.bodies, *prompt.bodies} == sent, 30)
        until(lambda: committed(cluster, "paused") == len(sent))
    finally:
        first.close()
        second.close()
        producer.close(10)


def test_what_is_blocked_at_one_member_is_known_to_all_of_them(cluster: str) -> None:
    producer = Producer(clients(cluster))
    slow = Received(is_open=False)
    said = Said()
    one = loop(clients(cluster), "marked", slow, said)
    other = Consumer({"bootstrap.servers": cluster, "group.id": "marked.one", "logger": LOG})
    try:
        send(producer, "marked", *(b"%d" % number for number in range(1000)))
        one.start()
        until(lambda: marks(other, "marked") == {0: 0, 1: 0, 2: 0, 3: 0}, 30)
        assert "partition 0 at offset 0" in (said.texts[-1] or "")
        slow.open()
        until(lambda: marks(other, "marked") == {}, 30)
        until(lambda: said.texts[-1] is None)
    finally:
        one.close()
        other.close()
        producer.close(10)


def test_a_mark_that_another_member_has_left_goes_where_nothing_is_blocked(
    cluster: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kafka_bus.blocked_mark, "ASK_EVERY", 0.2)
    producer = Producer(clients(cluster))
    slow = Received(is_open=False)
    before = loop(clients(cluster), "left", slow)
    after = loop(clients(cluster), "left", slow, max_uncommitted=10_000)
    other = Consumer({"bootstrap.servers": cluster, "group.id": "left.one", "logger": LOG})
    try:
        send(producer, "left", *(b"%d" % number for number in range(1000)))
        before.start()
        until(lambda: len(marks(other, "left")) == 4, 30)
        before.close()
        assert len(marks(other, "left")) == 4
        after.start()
        until(lambda: marks(other, "left") == {}, 30)
        assert committed(cluster, "left") == 0
    finally:
        before.close()
        after.close()
        other.close()
        producer.close(10)


class SlowToTellOffsets(Consumer):  # type: ignore[misc]
    """A consumer whose coordinator takes its time: it answers for metadata and offsets when the time-out is over."""

    def committed(self, partitions: list[TopicPartition], timeout: float = 1.0) -> list[TopicPartition]:
        time.sleep(timeout)
        return super().committed(partitions, timeout=5)  # type: ignore[no-any-return]


class SlowClients(Clients):
    def consumer(self, properties: Any) -> Consumer:
        usual = {"bootstrap.servers": self.settings.brokers, "logger": LOG}
        return SlowToTellOffsets({**usual, **properties, **self.settings.config})


def test_brokers_that_are_slow_to_tell_the_marks_delay_no_event(cluster: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kafka_bus.blocked_mark, "ASK_EVERY", 0.5)
    producer = Producer(clients(cluster))
    received = Received()
    usual = clients(cluster, config={"fetch.wait.max.ms": "50"})
    slow = SlowClients(usual.settings, usual.trouble, LOG, LOG)
    one = loop(slow, "prompt", received)
    slowest = 0.0
    try:
        send(producer, "prompt", b"first")
        one.start()
        until(lambda: received.bodies == [b"first"])
        for number in range(30):
            began = time.monotonic()
            send(producer, "prompt", b"%d" % number)
            until(lambda number=number: b"%d" % number in received.bodies)  # type: ignore[misc]
            slowest = max(slowest, time.monotonic() - began)
            threading.Event().wait(0.05)  # the events are spread over several requests for the marks
        print(f"\nthe slowest of 30 events took {slowest * 1000:.0f} ms")
        assert slowest < 0.5
    finally:
        one.close()
        producer.close(10)
