"""The parts of a consumer loop that need no broker: reader, committer, mark watch and blocked reporter."""

from __future__ import annotations

import logging
import threading
import time
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
from confluent_kafka import KafkaError, KafkaException, TopicPartition

import kafka_bus.blocked_mark
from bus_core import ForwardedHeaders, Gauge, Message, Outcome, SubscriptionReference, TemporaryError
from kafka_bus.blocked_mark import MARK, MarkAsker, MarkWatch
from kafka_bus.blocked_reporter import BlockedReporter
from kafka_bus.clients import Clients
from kafka_bus.committer import OffsetCommitter
from kafka_bus.consumer_loop import ConsumerLoop
from kafka_bus.error_codes import LocalError
from kafka_bus.failure import Trouble
from kafka_bus.loops import ConsumerLoops
from kafka_bus.names import ConsumerIdentity
from kafka_bus.ordered_submitter import OrderedSubmitter, SubmitPolicy
from kafka_bus.reader import Reader
from kafka_bus.settings import KafkaSettings

LOG = logging.getLogger("kafka_bus.tests")
LOG.setLevel(logging.CRITICAL)
ONE = SubscriptionReference("one")


def delivered(subscription: SubscriptionReference, message: Message) -> Future[Outcome]:
    done: Future[Outcome] = Future()
    done.set_result(Outcome.DELIVERED)
    return done


def test_what_a_commit_did_not_take_is_committed_again() -> None:
    class Commits:
        """The consumer as far as the committer goes: no broker refuses a commit when asked to."""

        made: ClassVar[list[tuple[int, int]]] = []

        def commit(self, *, offsets: list[TopicPartition], asynchronous: bool) -> None:
            self.made.extend((entry.partition, entry.offset) for entry in offsets)

    submitter = OrderedSubmitter(delivered, ONE, SubmitPolicy("key", max_in_flight=50, max_uncommitted=100))
    one = OffsetCommitter(ConsumerIdentity("untaken", "untaken.one", ONE), submitter, LOG)
    submitter.assign([0, 1])
    for number in (0, 1):
        submitter.offer(number, 4, None, Message({}, b""))
    submitter.pump()
    one.commit(Commits())
    one.commit(Commits())
    assert Commits.made == [(0, 5), (1, 5)], "once is enough"
    one.on_commit(None, [TopicPartition("untaken", 0, 5)])
    one.on_commit(KafkaError(KafkaError.REQUEST_TIMED_OUT), [TopicPartition("untaken", 1, 5)])
    one.commit(Commits())
    assert Commits.made[2:] == [(1, 5)]


def test_a_record_whose_headers_cannot_be_read_takes_no_other_along() -> None:
    class Record:
        """A record with a header name that is not UTF-8, as the client gives it."""

        def value(self) -> bytes:
            return b"a body"

        def headers(self) -> None:
            raise SystemError("returned a result with an exception set")

        def partition(self) -> int:
            return 0

        offset = partition

    submitter = OrderedSubmitter(delivered, ONE, SubmitPolicy("key", max_in_flight=50, max_uncommitted=100))
    identity = ConsumerIdentity("unreadable", "unreadable.one", ONE)
    made = Clients(KafkaSettings.model_validate({"brokers": "x:1"}), Trouble("x:1"), LOG, LOG)
    one = Reader(made, None, identity, submitter, ForwardedHeaders())
    assert one.to_event(Record()).payload == b"a body"


class Answers:
    """A consumer whose brokers answer for offsets when the test lets them."""

    def __init__(self, *offsets: TopicPartition) -> None:
        self.offsets = list(offsets)
        self.asked = threading.Event()
        self.may_answer = threading.Event()
        self.closed = 0

    def list_topics(self, topic: str, timeout: float) -> Any:
        return SimpleNamespace(topics={topic: SimpleNamespace(partitions=[0, 1])})

    def committed(self, partitions: list[TopicPartition], timeout: float) -> list[TopicPartition]:
        assert [entry.partition for entry in partitions] == [0, 1]
        self.asked.set()
        assert self.may_answer.wait(20)
        return self.offsets

    def close(self) -> None:
        self.closed += 1


class AnswersByGroup(Clients):
    """Clients whose consumers are given by their group."""

    consumers: ClassVar[dict[str, Any]] = {}

    def consumer(self, properties: Any) -> Any:
        found = self.consumers[properties["group.id"]]
        if isinstance(found, Exception):
            raise found
        return found


def asker(stopping: threading.Event, **consumers: Any) -> MarkAsker:
    AnswersByGroup.consumers.clear()
    AnswersByGroup.consumers.update(consumers)
    settings = KafkaSettings.model_validate({"brokers": "x:1"})
    return MarkAsker(AnswersByGroup(settings, Trouble("x:1"), LOG, LOG), stopping)


MARKED = (TopicPartition("orders", 0, 7, MARK), TopicPartition("orders", 1, 8, ""))


def test_the_marks_of_a_group_are_asked_for_on_a_thread_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kafka_bus.blocked_mark, "ASK_EVERY", 0.01)
    stopping = threading.Event()
    consumer, watch = Answers(*MARKED), MarkWatch("group", "orders")
    asker(stopping, group=consumer).add(watch)
    try:
        assert consumer.asked.wait(5)
        assert watch.poll() is None
        consumer.may_answer.set()
        deadline = time.monotonic() + 5
        while (found := watch.poll()) is None:
            assert time.monotonic() < deadline
        assert found == {0: 7}
        assert consumer.closed > 0
    finally:
        stopping.set()


def test_an_answer_is_given_once_and_not_if_it_is_older_than_the_assignment() -> None:
    consumer, watch = Answers(*MARKED), MarkWatch("group", "orders")
    one = asker(threading.Event(), group=consumer)
    asking = threading.Thread(target=one.ask, args=(watch,), name="asking", daemon=True)
    asking.start()
    assert consumer.asked.wait(5)
    watch.discard()
    consumer.may_answer.set()
    asking.join(5)
    assert watch.poll() is None
    one.ask(watch)
    assert watch.poll() == {0: 7}
    assert watch.poll() is None


def test_a_request_for_marks_that_fails_ends_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kafka_bus.blocked_mark, "ASK_EVERY", 0.01)
    stopping = threading.Event()
    good, watch = Answers(*MARKED), MarkWatch("good", "orders")
    good.may_answer.set()
    timed_out = KafkaException(KafkaError(LocalError.TIMED_OUT))
    one = asker(stopping, bad=RuntimeError("a fault of the client"), good=good, silent=timed_out)
    for each in (MarkWatch("bad", "orders"), watch, MarkWatch("silent", "orders")):
        one.add(each)
    deadline = time.monotonic() + 5
    try:
        for _ in range(3):
            while watch.poll() != {0: 7}:
                assert time.monotonic() < deadline
    finally:
        stopping.set()


def test_a_report_changes_with_the_blocked_partitions_of_all_members() -> None:
    said: list[tuple[str, str]] = []

    def report(subscription: SubscriptionReference, reason: str = "", message: str = "") -> None:
        said.append((reason, message))

    gauge = Gauge("bus_kafka_test_reporter", "Blocked partitions", ["subscription"])
    one = BlockedReporter(ONE, "orders", report, gauge)
    one.update({})
    assert said == []
    one.set_elsewhere({1: 5})
    one.update({0: 7})
    one.update({0: 7})
    text = "orders: partition 0 at offset 7, partition 1 at offset 5: "
    assert said == [("Blocked", text + "an event that cannot be delivered holds up the events after it")]
    one.assigned([1])
    one.update({})
    assert said[1:] == [("", "")]
    one.withdraw()
    assert len(said) == 2, "there was nothing to withdraw"
    one.update({0: 7})
    one.withdraw()
    assert said[3:] == [("", "")]


class HangingConsumer:
    """A consumer whose coordinator hangs: leaving the group takes until `answers` is set."""

    def __init__(self) -> None:
        self.answers = threading.Event()

    def subscribe(self, topics: list[str], **callbacks: object) -> None: ...

    def poll(self, timeout: float) -> None:
        self.answers.wait(timeout)

    def assignment(self) -> list[TopicPartition]:
        return []

    def close(self) -> None:
        self.answers.wait(30)


class HangingClients(Clients):
    def consumer(self, properties: Any) -> Any:
        return HangingConsumer()


def hanging_loop() -> ConsumerLoop:
    identity = ConsumerIdentity("hanging", "hanging.one", ONE)
    policy = SubmitPolicy("key", max_in_flight=50, max_uncommitted=100)
    gauge = Gauge("bus_kafka_test_hanging", "Blocked partitions", ["subscription"])
    clients = HangingClients(KafkaSettings.model_validate({"brokers": "x:1"}), Trouble("x:1"), LOG, LOG)
    return ConsumerLoop(
        clients,
        identity,
        OrderedSubmitter(delivered, ONE, policy),
        ForwardedHeaders(),
        MarkAsker(clients, threading.Event()),
        BlockedReporter(ONE, identity.topic, lambda *_: None, gauge),
    )


def test_a_shutdown_waits_for_a_consumer_only_until_its_deadline() -> None:
    loops = ConsumerLoops(threading.Event())
    one = hanging_loop()
    one.start()
    loops.add(one)
    began = time.monotonic()
    assert loops.close(began + 0.3) == [one]
    assert 0.25 < time.monotonic() - began < 5
    one._consumer.answers.set()
    assert one.close(10), "its thread goes on, and ends later"


def test_a_hook_that_waits_for_a_consumer_gives_up_when_the_host_stops() -> None:
    stopping = threading.Event()
    loops = ConsumerLoops(stopping)
    one = hanging_loop()
    one.start()
    loops.add(one)
    stopping.set()
    began = time.monotonic()
    with pytest.raises(TemporaryError, match="the host stops"):
        loops.remove(ONE)
    assert time.monotonic() - began < 5
    one._consumer.answers.set()
    assert one.close(10)
