"""Driver: the committer of a consumer loop. It commits the offsets of resolved records, and blocked marks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from kafka_bus.blocked_mark import MARK
from kafka_bus.names import ConsumerIdentity
from kafka_bus.ordered_submitter import OrderedSubmitter


class OffsetCommitter:
    """Commits for one consumer. Not thread-safe: for the consumer loop's thread.

    Its consumer is an argument of each call, since the consumer is made with the callback `on_commit`.
    """

    def __init__(self, identity: ConsumerIdentity, submitter: OrderedSubmitter, logger: Any) -> None:
        self._identity = identity
        self._submitter = submitter
        self._log = logger
        self._committed: dict[int, tuple[int, str]] = {}  # by partition: offset and mark
        self._stale: set[int] = set()  # partitions with a mark of another member, at the last look

    def commit(self, consumer: Consumer, *, wait: bool = False, only: set[int] | None = None) -> None:
        """Commit what is resolved and not committed yet.

        Args:
            wait: whether to wait for the brokers' answer.
            only: the partitions to commit; None means all.
        """
        blocked = self._submitter.blocked()
        due = {
            number: (offset, MARK if number in blocked else "")
            for number, offset in (blocked | self._submitter.committable()).items()
            if only is None or number in only
        }
        due = {number: state for number, state in due.items() if self._committed.get(number) != state}
        if not due:
            return
        topic = self._identity.topic
        offsets = [TopicPartition(topic, number, offset, mark) for number, (offset, mark) in due.items()]
        try:
            consumer.commit(offsets=offsets, asynchronous=not wait)
        except KafkaException as error:
            # The next commit covers it. Without a next one, the records are delivered again.
            subscription = str(self._identity.subscription)
            self._log.warning("a commit failed", subscription=subscription, detail=error.args[0].str())
            return
        self._committed.update(due)

    def on_commit(self, error: KafkaError | None, partitions: list[TopicPartition]) -> None:
        """The consumer's callback, called from within its `poll` and `consume`. A failed commit becomes due again."""
        for partition in partitions:
            if (error or partition.error) is not None:
                self._committed.pop(partition.partition, None)

    def assigned(self, partitions: Iterable[int]) -> None:
        """The group gave these partitions to this member: what it committed before no longer counts."""
        for number in partitions:
            self._committed.pop(number, None)
            self._stale.discard(number)

    def remove_stale_marks(self, consumer: Consumer, marked: Mapping[int, int]) -> None:
        """Remove marks that an earlier owner left on this member's partitions.

        A partition that is not blocked any more loses its mark with the next commit. If no record arrives, there is no
        next commit and the mark would stay. A mark counts as stale if it is seen twice.

        Args:
            marked: the marked partitions, as the brokers just said, with the committed offset.
        """
        mine = set(self._submitter.partitions)
        stale = {number for number in marked.keys() & mine if number not in self._committed}
        stale -= self._submitter.blocked().keys()
        for number in stale & self._stale:
            consumer.commit(offsets=[TopicPartition(self._identity.topic, number, marked[number])])
        self._stale = stale
