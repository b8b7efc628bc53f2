"""Driver: the consumer loop of one subscription, a thread that reads the topic and commits what is resolved."""

from __future__ import annotations

import threading
import time

from confluent_kafka import Consumer, TopicPartition

from bus_core import ForwardedHeaders, Gauge
from kafka_bus.blocked_mark import MarkAsker, MarkWatch
from kafka_bus.blocked_reporter import BlockedReporter
from kafka_bus.clients import Clients
from kafka_bus.committer import OffsetCommitter
from kafka_bus.names import ConsumerIdentity
from kafka_bus.ordered_submitter import OrderedSubmitter
from kafka_bus.reader import Reader
from kafka_bus.settings import KafkaSettings

LAG = Gauge("bus_kafka_consumer_lag", "Records between a group's position and the end of its topic", ["subscription"])

REVOKE_TIMEOUT = 5.0
"""Seconds that a rebalance waits for records in flight. The longer it waits, the fewer are delivered twice."""

_LAG_EVERY = 2.0


class ConsumerLoop:
    """A member of the subscription's consumer group, from `start` to `close`.

    `start`, `wait_joined`, `pause`, `leave` and `close` are safe from any thread. All else runs on its own thread.
    So do librdkafka's callbacks, which it calls from within `poll`, `consume` and `close`.
    """

    def __init__(
        self,
        clients: Clients,
        identity: ConsumerIdentity,
        submitter: OrderedSubmitter,
        forwarded: ForwardedHeaders,
        asker: MarkAsker,
        blocked: BlockedReporter,
    ) -> None:
        self.identity = identity
        self._clients = clients
        self._submitter = submitter
        self._blocked = blocked
        self._committer = OffsetCommitter(identity, submitter, clients.logger)
        self._consumer = clients.consumer(
            {**_properties(clients.settings), "group.id": identity.group, "on_commit": self._committer.on_commit}
        )
        self._asker = asker
        self._marks = MarkWatch(identity.group, identity.topic)
        self._reader = Reader(clients, self._consumer, identity, submitter, forwarded)
        self._leave = threading.Event()
        self._joined = threading.Event()
        self._thread = threading.Thread(target=self._run, name="kafka-consumer", daemon=True)

    def start(self) -> None:
        """Join the group, and begin to read."""
        self._consumer.subscribe(
            [self.identity.topic], on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost
        )
        self._thread.start()

    def wait_joined(self, timeout: float, stopping: threading.Event) -> bool:
        """Wait until this member has its share of the partitions, which may be none.

        Args:
            timeout: seconds.
            stopping: ends the wait, too.
        """
        deadline = time.monotonic() + timeout
        while not self._joined.wait(0.1):
            if stopping.is_set() or time.monotonic() > deadline:
                return False
        return True

    def pause(self) -> None:
        """Submit no more, but stay in the group: what is in flight is still committed. Returns at once."""
        self._reader.stop()
        self._submitter.stop()

    def leave(self) -> None:
        """Have the loop's thread commit what is resolved, leave the group and end. Returns at once."""
        self.pause()
        self._leave.set()

    def close(self, timeout: float | None = None) -> bool:
        """Leave, and wait until that is done: for a round trip, or up to a minute if a broker hangs.

        Args:
            timeout: seconds; None means without limit.

        Returns:
            Whether the loop has ended. Otherwise its thread goes on, and ends later.
        """
        self.leave()
        if self._thread.ident is not None:
            self._thread.join(timeout)
        return not self._thread.is_alive()

    def withdraw_report(self) -> None:
        """Take the report `Blocked` back. For a closed loop."""
        self._blocked.withdraw()

    @property
    def paused(self) -> set[int]:
        """The partitions that are paused. For tests and logs: it may change at any time."""
        return self._reader.paused

    def _run(self) -> None:
        commit_at = lag_at = time.monotonic()
        subscription = str(self.identity.subscription)
        self._asker.add(self._marks)
        try:
            while not self._leave.is_set():
                try:
                    self._reader.read()
                    now = time.monotonic()
                    if now >= commit_at:
                        commit_at = now + self._clients.settings.commit_interval
                        self._committer.commit(self._consumer)
                        self._blocked.update(self._submitter.blocked())
                    if now >= lag_at:
                        lag_at = now + _LAG_EVERY
                        LAG.set(self._lag(), subscription)
                    self._look_for_marks()
                except Exception:
                    # Records that were read are submitted, and only resolved ones are committed.
                    self._clients.logger.exception("reading failed and goes on", subscription=subscription)
                    self._leave.wait(1.0)
            self._committer.commit(self._consumer, wait=True)
        finally:
            self._asker.remove(self._marks)
            self._consumer.close()
            self._submitter.drop(self._submitter.partitions)
            LAG.forget(subscription)
            self._blocked.close()

    def _look_for_marks(self) -> None:
        marked = self._marks.poll()
        if marked is not None:
            mine = set(self._submitter.partitions)
            self._blocked.set_elsewhere({number: offset for number, offset in marked.items() if number not in mine})
            self._committer.remove_stale_marks(self._consumer, marked)

    def _lag(self) -> int:
        """How many records of its partitions are unresolved or unread, from what the client knows already."""
        lag = 0
        for partition in self._consumer.assignment():
            _, high = self._consumer.get_watermark_offsets(partition, cached=True)
            position = self._submitter.position(partition.partition)
            if position is None:
                (found,) = self._consumer.position([partition])
                position = found.offset
            if high >= 0 and position >= 0:
                lag += max(high - position, 0)
        return lag

    def _on_assign(self, _: Consumer, partitions: list[TopicPartition]) -> None:
        numbers = [partition.partition for partition in partitions]
        self._submitter.assign(numbers)
        self._reader.assigned(numbers)
        self._committer.assigned(numbers)
        self._blocked.assigned(numbers)
        self._marks.discard()
        self._joined.set()
        self._clients.logger.info(
            "partitions assigned", subscription=str(self.identity.subscription), partitions=numbers
        )

    def _on_revoke(self, _: Consumer, partitions: list[TopicPartition]) -> None:
        numbers = {partition.partition for partition in partitions}
        self._submitter.settle(numbers, 0.0 if self._leave.is_set() else REVOKE_TIMEOUT)
        self._committer.commit(self._consumer, wait=True, only=numbers)
        self._forget(numbers)
        self._clients.logger.info(
            "partitions revoked", subscription=str(self.identity.subscription), partitions=sorted(numbers)
        )

    def _on_lost(self, _: Consumer, partitions: list[TopicPartition]) -> None:
        numbers = {partition.partition for partition in partitions}
        self._forget(numbers)
        self._clients.logger.warning(
            "partitions lost", subscription=str(self.identity.subscription), partitions=sorted(numbers)
        )

    def _forget(self, partitions: set[int]) -> None:
        self._submitter.drop(partitions)
        self._reader.revoked(partitions)
        self._marks.discard()


def _properties(settings: KafkaSettings) -> dict[str, object]:
    """The consumer's properties that are the same for all subscriptions."""
    session = round(settings.session_timeout * 1000)
    return {
        "partition.assignment.strategy": "cooperative-sticky",
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        # `subscribe` fixes the position before a loop starts, so this is for partitions that are added later.
        "auto.offset.reset": "earliest",
        "session.timeout.ms": session,
        "heartbeat.interval.ms": max(round(session / 3), 500),
        "topic.metadata.refresh.interval.ms": 10_000,
        # Events wait in the lanes. What librdkafka reads ahead costs memory for each subscription.
        "queued.max.messages.kbytes": 4096,
        "fetch.queue.backoff.ms": 20,  # By default it waits a second once that much has been read ahead.
    }
