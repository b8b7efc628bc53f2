"""One subscription's consumer: reads its group's share of the topic, feeds the flow, commits what is resolved."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from bus_core import ForwardedHeaders, Gauge, Message
from kafka_bus.blocked import MARK, marks, sentence
from kafka_bus.codec import to_message
from kafka_bus.failure import Trouble
from kafka_bus.flow import Flow
from kafka_bus.settings import KafkaSettings

BLOCKED = Gauge("bus_kafka_blocked_partitions", "Partitions held up by an undeliverable event", ["subscription"])
LAG = Gauge("bus_kafka_consumer_lag", "Records between a group's position and the end of its topic", ["subscription"])

REVOKE_TIMEOUT = 5.0
"""Seconds that a rebalance waits for what is in flight: the longer, the fewer are delivered twice."""

_POLL = 0.1
_BATCH = 200
_GATHER = 0.005  # seconds that the first event of a batch waits for others: it saves turns
_LAG_EVERY = 2.0
_ASK_EVERY = 5.0
_PATIENCE = 1.0  # a subscriber this slow may cost a second fetch; the group wants to hear of us


class Feed:
    """Runs on a thread of its own from `start` to `close`.

    Args:
        logger: for people. client_logger: for what librdkafka has to say.
        terms: what the feed was made for; another `subscribe` with the same needs no other feed.
        report: told the state for people: a text while partitions are blocked, None when they are not.
    """

    def __init__(
        self,
        settings: KafkaSettings,
        trouble: Trouble,
        logger: Any,
        client_logger: Any,
        *,
        topic: str,
        group: str,
        subscription: str,
        flow: Flow,
        terms: Hashable,
        forwarded: ForwardedHeaders,
        report: Callable[[str | None], None],
    ) -> None:
        self.terms = terms
        self._settings = settings
        self._trouble = trouble
        self._log = logger
        self._topic = topic
        self._subscription = subscription
        self._flow = flow
        self._forwarded = forwarded
        self._report = report
        self._reported: str | None = None
        self._paused: set[int] = set()
        self._fresh: set[int] = set()  # just assigned: librdkafka remembers from before whether they were paused
        self._read_at = 0.0
        self._committed: dict[int, tuple[int, str]] = {}
        self._elsewhere: dict[int, int] = {}  # what other members say is blocked
        self._left: set[int] = set()  # what one that had a partition of mine has said of it, at the last look
        self._stop = threading.Event()
        self._leave = threading.Event()
        self._joined = threading.Event()
        self._consumer = Consumer(
            {
                **settings.client_config(),
                "group.id": group,
                "partition.assignment.strategy": "cooperative-sticky",
                "enable.auto.commit": False,
                "enable.auto.offset.store": False,
                # The position is fixed before a feed starts, so this is for partitions that were added later.
                "auto.offset.reset": "earliest",
                "session.timeout.ms": round(settings.session_timeout * 1000),
                "heartbeat.interval.ms": max(round(settings.session_timeout * 1000 / 3), 500),
                "topic.metadata.refresh.interval.ms": 10_000,
                # Events wait in the lanes; what librdkafka reads ahead would be memory for each subscription.
                "queued.max.messages.kbytes": 4096,
                "fetch.queue.backoff.ms": 20,  # else it waits a second once that much has been read ahead
                "error_cb": trouble.note,
                "on_commit": self._heard_of_commit,
                "logger": client_logger,
                **settings.config,
            }
        )
        self._thread = threading.Thread(target=self._run, name=f"kafka-{subscription}", daemon=True)

    def start(self) -> None:
        self._consumer.subscribe([self._topic], on_assign=self._assigned, on_revoke=self._revoked, on_lost=self._lost)
        self._thread.start()

    def wait_joined(self, timeout: float, stopping: threading.Event) -> bool:
        """Until this member has its share of the partitions, which may be none. A stop does not wait for it."""
        deadline = time.monotonic() + timeout
        while not self._joined.wait(0.1):
            if stopping.is_set() or time.monotonic() > deadline:
                return False
        return True

    @property
    def is_reported(self) -> bool:
        """Whether people have been told last that something is blocked."""
        return self._reported is not None

    def pause(self) -> None:
        """Read no more, stay in the group: what is in flight is still committed. Returns at once."""
        self._stop.set()
        self._flow.stop()

    def close(self) -> None:
        """Commit what is resolved, and leave the group. Blocks until that is done."""
        self.pause()
        self._leave.set()
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        commit_at = lag_at = ask_at = time.monotonic()
        try:
            while not self._leave.is_set():
                try:
                    self._read()
                    now = time.monotonic()
                    if now >= commit_at:
                        commit_at = now + self._settings.commit_interval
                        self._commit()
                        self._say()
                    if now >= lag_at:
                        lag_at = now + _LAG_EVERY
                        self._measure()
                    if now >= ask_at:
                        ask_at = now + _ASK_EVERY
                        self._ask()
                except Exception:
                    # Whatever was read is on its way by then, and nothing is committed that was not resolved.
                    self._log.exception("reading failed and goes on", subscription=self._subscription)
                    self._leave.wait(1.0)
            self._commit(wait=True)
        finally:
            self._consumer.close()
            self._flow.drop(self._flow.partitions)
            LAG.forget(self._subscription)
            BLOCKED.forget(self._subscription)

    def _read(self) -> None:
        # Reading stops by not reading, for a while: a partition that is paused loses what was fetched ahead, and
        # would fetch it again at every turn.
        if not self._stop.is_set() and not self._flow.wait_room(_POLL):
            if time.monotonic() - self._read_at < _PATIENCE:
                self._flow.pump()
                return
            self._hold()
        self._read_at = time.monotonic()
        # `consume` alone would wait all its time for a batch to fill: an event would take 50 ms in the median.
        first = self._consumer.poll(_POLL)
        if first is not None:
            self._take(first)
            for record in self._consumer.consume(_BATCH - 1, _GATHER):
                self._take(record)
        self._flow.pump()
        self._hold()

    def _take(self, record: Any) -> None:
        error = record.error()
        if error is None:
            if not self._stop.is_set():  # else it is never offered, never committed, and read again
                self._flow.offer(record.partition(), record.offset(), record.key(), self._event(record))
        elif error.code() != KafkaError._PARTITION_EOF:
            self._trouble.note(error)
            detail = self._trouble.sentence(error)
            self._log.warning("reading is disturbed", subscription=self._subscription, detail=detail)

    def _event(self, record: Any) -> Message:
        """The event of a record. One that cannot be read must not take along what was read with it: an offset that is
        never offered looks like one that compaction has taken."""
        try:
            return to_message(record.value(), record.headers() or (), self._forwarded)
        except Exception as error:  # the client raises SystemError for a header's name that is not UTF-8
            place = f"partition {record.partition()} at offset {record.offset()}"
            self._log.warning("a record's headers cannot be read", topic=self._topic, place=place, detail=str(error))
            return Message({}, record.value() or b"")

    def _hold(self) -> None:
        """Pause the partitions of which enough has been read, and resume those that have room again."""
        mine = set(self._flow.partitions)
        late = time.monotonic() - self._read_at >= _PATIENCE
        full = not self._flow.wait_room(0) and (late or mine == self._paused)
        want = mine if full else {number for number in mine if self._flow.wants_pause(number)}
        fresh, self._fresh = self._fresh & mine, self._fresh - mine
        pause, resume = want - (self._paused - fresh), ((self._paused | fresh) & mine) - want
        if pause:
            self._consumer.pause([TopicPartition(self._topic, number) for number in pause])
        if resume:
            self._consumer.resume([TopicPartition(self._topic, number) for number in resume])
        self._paused = want

    def _commit(self, *, wait: bool = False, only: set[int] | None = None) -> None:
        blocked = self._flow.blocked()
        due = {
            number: (offset, MARK if number in blocked else "")
            for number, offset in (blocked | self._flow.committable()).items()
            if only is None or number in only
        }
        due = {number: state for number, state in due.items() if self._committed.get(number) != state}
        if not due:
            return
        offsets = [TopicPartition(self._topic, number, offset, mark) for number, (offset, mark) in due.items()]
        try:
            self._consumer.commit(offsets=offsets, asynchronous=not wait)
        except KafkaException as error:
            # The next commit covers it; without one the records are delivered once more.
            self._log.warning("a commit failed", subscription=self._subscription, detail=error.args[0].str())
            return
        self._committed.update(due)

    def _heard_of_commit(self, error: KafkaError | None, partitions: list[TopicPartition]) -> None:
        """Called by librdkafka. What was not taken is to be committed again."""
        for partition in partitions:
            if (error or partition.error) is not None:
                self._committed.pop(partition.partition, None)

    def _say(self) -> None:
        blocked = self._flow.blocked()
        BLOCKED.set(len(blocked), self._subscription)
        text = sentence(self._topic, self._elsewhere | blocked)
        if text != self._reported:
            self._reported = text
            self._report(text)

    def _ask(self) -> None:
        try:
            marked = marks(self._consumer, self._topic)
        except KafkaException:
            return  # what was known stays; the reason comes by callback
        mine = set(self._flow.partitions)
        self._elsewhere = {number: offset for number, offset in marked.items() if number not in mine}
        # Another one's mark on a partition that is mine now. Where nothing is blocked any more, and nothing comes that
        # would be committed, it would stay.
        left = {
            number for number in marked.keys() & mine if number not in self._committed
        } - self._flow.blocked().keys()
        for number in left & self._left:
            self._consumer.commit(offsets=[TopicPartition(self._topic, number, marked[number])])
        self._left = left

    def _measure(self) -> None:
        lag = 0
        for partition in self._consumer.assignment():
            _, high = self._consumer.get_watermark_offsets(partition, cached=True)
            position = self._flow.position(partition.partition)
            if position is None:
                (found,) = self._consumer.position([partition])
                position = found.offset
            if high >= 0 and position >= 0:
                lag += max(high - position, 0)
        LAG.set(lag, self._subscription)

    # Called by librdkafka on this feed's thread, from within `consume` and `close`.

    def _assigned(self, _: Consumer, partitions: list[TopicPartition]) -> None:
        numbers = [partition.partition for partition in partitions]
        self._flow.assign(numbers)
        self._fresh.update(numbers)
        for number in numbers:
            self._committed.pop(number, None)
            self._elsewhere.pop(number, None)
        self._joined.set()
        self._log.info("partitions assigned", subscription=self._subscription, partitions=numbers)

    def _revoked(self, _: Consumer, partitions: list[TopicPartition]) -> None:
        numbers = {partition.partition for partition in partitions}
        self._flow.settle(numbers, 0.0 if self._leave.is_set() else REVOKE_TIMEOUT)
        self._commit(wait=True, only=numbers)
        self._flow.drop(numbers)
        self._paused -= numbers
        self._log.info("partitions revoked", subscription=self._subscription, partitions=sorted(numbers))

    def _lost(self, _: Consumer, partitions: list[TopicPartition]) -> None:
        numbers = [partition.partition for partition in partitions]
        self._flow.drop(numbers)
        self._paused -= set(numbers)
        self._log.warning("partitions lost", subscription=self._subscription, partitions=numbers)
