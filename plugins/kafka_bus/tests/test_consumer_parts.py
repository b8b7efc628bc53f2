"""The parts of a consumer loop that need no broker: reader, committer, mark watch and blocked reporter."""

from __future__ import annotations

import logging
import threading
import time
from concurrent.futures import Future
from typing import Any, ClassVar

import pytest
from confluent_kafka import ConsumerGroupTopicPartitions, KafkaError, KafkaException, TopicPartition

from bus_core import ForwardedHeaders, Gauge, Message, Outcome, SubscriptionReference, TemporaryError
from kafka_bus.blocked_mark import ASK_EVERY, MARK, MarkWatch
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
    """An admin client whose answers the test gives."""

    def __init__(self) -> None:
        self.asked: list[Future[Any]] = []

    def list_consumer_group_offsets(self, groups: list[ConsumerGroupTopicPartitions], **_: object) -> dict[str, Any]:
        self.asked.append(Future())
        return {groups[0].group_id: self.asked[-1]}

    def answer(self, *offsets: TopicPartition) -> None:
        self.asked[-1].set_result(ConsumerGroupTopicPartitions("group", list(offsets)))


def test_the_marks_of_a_group_are_asked_for_without_waiting() -> None:
    answers = Answers()
    watch = MarkWatch(answers, "group", "orders", 10.0)
    assert watch.poll(100.0) is None
    assert watch.poll(100.0 + 10 * ASK_EVERY) is None, "no second request while there is no answer"
    assert len(answers.asked) == 1
    answers.answer(
        TopicPartition("orders", 0, 7, MARK), TopicPartition("orders", 1, 8, ""), TopicPartition("other", 2, 9, MARK)
    )
    assert watch.poll(101.0) == {0: 7}
    assert watch.poll(101.0) is None
    assert watch.poll(100.0 + ASK_EVERY) is None
    assert len(answers.asked) == 2
    answers.asked[-1].set_exception(KafkaException(KafkaError(LocalError.TIMED_OUT)))
    assert watch.poll(102.0) is None, "a failed request says nothing"


def test_an_answer_that_is_older_than_the_assignment_is_ignored() -> None:
    answers = Answers()
    watch = MarkWatch(answers, "group", "orders", 10.0)
    watch.poll(100.0)
    watch.discard()
    answers.answer(TopicPartition("orders", 0, 7, MARK))
    assert watch.poll(101.0) is None


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
    return ConsumerLoop(
        HangingClients(KafkaSettings.model_validate({"brokers": "x:1"}), Trouble("x:1"), LOG, LOG),
        identity,
        OrderedSubmitter(delivered, ONE, policy),
        ForwardedHeaders(),
        MarkWatch(Answers(), identity.group, identity.topic, 10.0),
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
