"""A subscription's consumer group: its position is fixed before anyone reads, and it goes when the last one leaves."""

from __future__ import annotations

from typing import Any

from confluent_kafka import ConsumerGroupTopicPartitions, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from bus_core import TemporaryError
from kafka_bus.failure import Trouble

_GONE = {KafkaError.GROUP_ID_NOT_FOUND, KafkaError.INVALID_GROUP_ID}
_ACTIVE = {KafkaError.NON_EMPTY_GROUP, KafkaError.UNKNOWN_MEMBER_ID, KafkaError.REBALANCE_IN_PROGRESS}


class Groups:
    """Blocking; safe from several threads, as the admin client is."""

    def __init__(self, admin: AdminClient, trouble: Trouble, timeout: float) -> None:
        self._admin = admin
        self._trouble = trouble
        self._timeout = timeout

    def fix_position(self, group: str, topic: str, partitions: list[int], *, newest: bool) -> bool:
        """Commit an offset for every partition that has none.

        In a new group that is the end of the topic or its beginning. Where the group has a position already, a
        partition without one was added later, and all of it counts.

        Returns:
            Whether there was something to commit. Then the caller must join the group before it reports success: once
            the group has a member nobody else can move its position.

        Raises:
            TemporaryError: not now; what a concurrent one committed is seen the next time.
        """
        try:
            asked = ConsumerGroupTopicPartitions(group, [TopicPartition(topic, number) for number in partitions])
            (found,) = self._results(self._admin.list_consumer_group_offsets([asked], request_timeout=self._timeout))
            missing = [entry.partition for entry in found.topic_partitions if entry.offset < 0]
            if not missing:
                return False
            is_new = len(missing) == len(partitions)
            spec = OffsetSpec.latest() if newest and is_new else OffsetSpec.earliest()
            wanted = {TopicPartition(topic, number): spec for number in missing}
            listed = self._admin.list_offsets(wanted, request_timeout=self._timeout)
            offsets = [
                TopicPartition(topic, partition.partition, future.result(self._timeout + 5).offset)
                for partition, future in listed.items()
            ]
            commit = ConsumerGroupTopicPartitions(group, offsets)
            (done,) = self._results(self._admin.alter_consumer_group_offsets([commit], request_timeout=self._timeout))
            failed = next((entry.error for entry in done.topic_partitions if entry.error is not None), None)
            if failed is not None:
                raise KafkaException(failed)
        except KafkaException as error:
            if error.args[0].code() in _ACTIVE:
                # Another worker reads already. Partitions that were added since start at their oldest by themselves.
                return True
            raise self._trouble.as_error(f"group {group}", error) from None
        return True

    def delete(self, group: str) -> bool:
        """Remove the group; False where it still has members, the last of which removes it."""
        try:
            self._results(self._admin.delete_consumer_groups([group], request_timeout=self._timeout))
        except KafkaException as error:
            if error.args[0].code() in _ACTIVE:
                return False
            if error.args[0].code() not in _GONE:
                failure = self._trouble.as_error(f"group {group}", error)
                raise TemporaryError(str(failure)) from None
        return True

    def _results(self, futures: Any) -> list[Any]:
        return [future.result(self._timeout + 5) for future in futures.values()]
