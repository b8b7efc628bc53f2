"""The producer and the feed against librdkafka's own mock cluster: the wire without a server."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import ClassVar

import pytest
from confluent_kafka import Consumer, ConsumerGroupTopicPartitions, KafkaError, TopicPartition
from confluent_kafka.admin import AdminClient

import kafka_bus.feed
from bus_core import ForwardedHeaders, Message, Outcome, TemporaryError
from kafka_bus.blocked import marks
from kafka_bus.codec import to_record
from kafka_bus.failure import Trouble
from kafka_bus.feed import Feed
from kafka_bus.flow import Flow
from kafka_bus.producer import Producer, Producers
from kafka_bus.settings import KafkaSettings

LOG = logging.getLogger("kafka_bus.tests")
LOG.setLevel(logging.CRITICAL)


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    mock = AdminClient({"test.mock.num.brokers": "1", "bootstrap.servers": "mock", "logger": LOG})
    yield ",".join(f"{broker.host}:{broker.port}" for broker in mock.list_topics(timeout=10).brokers.values())
    del mock


def settings(brokers: str, **values: object) -> KafkaSettings:
    return KafkaSettings.model_validate({"brokers": brokers, **values})


class Received:
    """What a feed submits, settled at once, or when `open` is called."""

    def __init__(self, *, is_open: bool = True) -> None:
        self.bodies: list[bytes] = []
        self._is_open = is_open
        self._held: list[Future[Outcome]] = []

    def submit(self, message: Message) -> Future[Outcome]:
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


def feed(
    brokers: str,
    topic: str,
    received: Received,
    report: Callable[[str | None], None] = lambda _: None,
    max_uncommitted: int = 100,
) -> Feed:
    flow = Flow(received.submit, ordering="partition", max_in_flight=50, max_uncommitted=max_uncommitted)
    return Feed(
        settings(brokers, commit_interval=0.1),
        Trouble(brokers),
        LOG,
        LOG,
        topic=topic,
        group=f"{topic}.one",
        subscription="default/one",
        flow=flow,
        terms=(),
        forwarded=ForwardedHeaders(),
        report=report,
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


def test_what_was_acknowledged_is_read_once_and_committed(cluster: str) -> None:
    producer = Producer(settings(cluster), Trouble(cluster), LOG)
    try:
        sent = [b"%d" % number for number in range(100)]
        send(producer, "orders", *sent)
        received = Received()
        one = feed(cluster, "orders", received)
        one.start()
        until(lambda: len(received.bodies) == 100)
        one.close()
        assert sorted(received.bodies) == sorted(sent)
        assert committed(cluster, "orders") == 100
    finally:
        producer.close()


def test_a_partition_that_was_paused_goes_on_after_it_went_and_came_back(
    cluster: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A slow subscriber, and a second host that comes and goes: as in every rolling update."""
    monkeypatch.setattr(kafka_bus.feed, "REVOKE_TIMEOUT", 0.1)
    producer = Producer(settings(cluster), Trouble(cluster), LOG)
    sent = {b"%d" % number for number in range(2000)}
    slow, prompt = Received(is_open=False), Received()
    first, second = feed(cluster, "paused", slow), feed(cluster, "paused", prompt)
    try:
        send(producer, "paused", *sent)
        first.start()
        until(lambda: len(first._paused) == 4, 30)
        second.start()
        until(lambda: len(prompt.bodies) > 0, 30)
        second.close()
        slow.open()
        until(lambda: {*slow.bodies, *prompt.bodies} == sent, 30)
        until(lambda: committed(cluster, "paused") == len(sent))
    finally:
        first.close()
        second.close()
        producer.close()


def test_what_is_blocked_at_one_member_is_known_to_all_of_them(cluster: str) -> None:
    producer = Producer(settings(cluster), Trouble(cluster), LOG)
    slow = Received(is_open=False)
    said: list[str | None] = []
    one = feed(cluster, "marked", slow, said.append)
    other = Consumer({"bootstrap.servers": cluster, "group.id": "marked.one", "logger": LOG})
    try:
        send(producer, "marked", *(b"%d" % number for number in range(1000)))
        one.start()
        until(lambda: marks(other, "marked") == {0: 0, 1: 0, 2: 0, 3: 0}, 30)
        assert "partition 0 at offset 0" in (said[-1] or "")
        slow.open()
        until(lambda: marks(other, "marked") == {}, 30)
        until(lambda: said[-1] is None)
    finally:
        one.close()
        other.close()
        producer.close()


def test_a_mark_that_another_member_has_left_goes_where_nothing_is_blocked(
    cluster: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kafka_bus.feed, "_ASK_EVERY", 0.2)
    producer = Producer(settings(cluster), Trouble(cluster), LOG)
    slow = Received(is_open=False)
    before, after = feed(cluster, "left", slow), feed(cluster, "left", slow, max_uncommitted=10_000)
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
        producer.close()


def test_what_a_commit_did_not_take_is_committed_again(cluster: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Commits:
        """The consumer as far as `_commit` goes: no broker refuses a commit when asked to."""

        made: ClassVar[list[tuple[int, int]]] = []

        def commit(self, *, offsets: list[TopicPartition], asynchronous: bool) -> None:
            self.made.extend((entry.partition, entry.offset) for entry in offsets)

    one = feed(cluster, "untaken", Received())
    try:
        with monkeypatch.context() as patch:
            patch.setattr(one, "_consumer", Commits())
            one._flow.assign([0, 1])
            for number in (0, 1):
                one._flow.offer(number, 4, None, Message({}, b""))
            one._flow.pump()
            one._commit()
            one._commit()
            assert Commits.made == [(0, 5), (1, 5)], "once is enough"
            one._heard_of_commit(None, [TopicPartition("untaken", 0, 5)])
            one._heard_of_commit(KafkaError(KafkaError.REQUEST_TIMED_OUT), [TopicPartition("untaken", 1, 5)])
            one._commit()
            assert Commits.made[2:] == [(1, 5)]
    finally:
        one.close()


def test_a_record_whose_headers_cannot_be_read_takes_no_other_along(cluster: str) -> None:
    class Record:
        """What the client gives for a header's name that is not UTF-8."""

        def value(self) -> bytes:
            return b"a body"

        def headers(self) -> None:
            raise SystemError("returned a result with an exception set")

        def partition(self) -> int:
            return 0

        offset = partition

    one = feed(cluster, "unreadable", Received())
    assert one._event(Record()).payload == b"a body"
    one.close()


def test_a_producer_that_a_fatal_error_has_ended_is_replaced(cluster: str) -> None:
    producers = Producers(settings(cluster), Trouble(cluster), LOG)
    record = to_record(Message({}, b"x"))
    try:
        asyncio.run(producers.send("fatal", record))
        (spent,) = producers._producers.values()
        spent.is_spent = True
        asyncio.run(producers.send("fatal", record))
        assert list(producers._producers.values()) != [spent]
    finally:
        producers.close()


def test_more_than_may_wait_is_refused_at_once() -> None:
    nobody = "127.0.0.1:9"
    few = settings(nobody, produce_timeout=0.5, queue_bytes=1 << 20)
    producer = Producer(few, Trouble(nobody), LOG)

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
        producer.close()


def test_topics_with_a_small_limit_share_no_batch_with_others(cluster: str) -> None:
    producers = Producers(settings(cluster), Trouble(cluster), LOG)
    producers.learn("small", 10_000)
    producers.learn("usual", 1_048_588)

    async def both() -> None:
        for topic in ("small", "usual", "unknown"):
            await producers.send(topic, to_record(Message({}, b"x")))

    try:
        asyncio.run(both())
        assert sorted(producers._producers) == [10_000, 1_000_000]
    finally:
        producers.close()
