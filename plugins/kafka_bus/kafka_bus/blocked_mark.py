"""Driver: the blocked mark, which tells all members of a group which partitions are blocked.

One member reads a partition, and another one may write the conditions. Kafka stores a text beside each committed offset
(`metadata` of OffsetCommit), so the mark needs no storage of its own. Every member can read it, it outlives the member
that wrote it, and the next commit that goes further removes it.
"""

from __future__ import annotations

from concurrent.futures import Future

from confluent_kafka import ConsumerGroupTopicPartitions, KafkaException
from confluent_kafka.admin import AdminClient

MARK = "blocked"

ASK_EVERY = 5.0
"""Seconds between two requests for the marks of a group."""


class MarkWatch:
    """Reads the marks of a group again and again, and never blocks. Not thread-safe: for the consumer's thread.

    The admin client sends the requests and resolves the futures on a thread of librdkafka, so a slow broker delays the
    answer and nothing else.
    """

    def __init__(self, admin: AdminClient, group: str, topic: str, timeout: float) -> None:
        self._admin = admin
        self._group = group
        self._topic = topic
        self._timeout = timeout
        self._ask_at = 0.0
        self._answer: Future[ConsumerGroupTopicPartitions] | None = None

    def poll(self, now: float) -> dict[int, int] | None:
        """Send the request if it is time; return the marked partitions with their offsets once they are known.

        Args:
            now: monotonic time in seconds.

        Returns:
            None while there is no new answer, or if the brokers did not give one.
        """
        if self._answer is None:
            if now >= self._ask_at:
                self._ask_at = now + ASK_EVERY
                self._answer = self._ask()
            return None
        if not self._answer.done():
            return None
        answer, self._answer = self._answer, None
        try:
            found = answer.result().topic_partitions
        except KafkaException:
            return None  # The last known marks stay. The client's error callback hears the reason.
        return {
            entry.partition: entry.offset
            for entry in found
            if entry.topic == self._topic and entry.metadata == MARK and entry.error is None
        }

    def discard(self) -> None:
        """Ignore a request under way: the answer may be older than the last change of the assignment."""
        self._answer = None

    def _ask(self) -> Future[ConsumerGroupTopicPartitions]:
        # Without partitions, the answer has every partition that the group has an offset for.
        asked = ConsumerGroupTopicPartitions(self._group)
        futures = self._admin.list_consumer_group_offsets([asked], request_timeout=self._timeout)
        future: Future[ConsumerGroupTopicPartitions] = futures[self._group]
        return future
