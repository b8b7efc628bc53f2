"""Driver: a subscription's consumer group. Its position is fixed before anyone reads; the last member deletes it."""

from __future__ import annotations

from confluent_kafka import ConsumerGroupTopicPartitions, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import OffsetSpec

from bus_core import TemporaryError
from kafka_bus.admin import AdminRequests, error_code
from kafka_bus.failure import Trouble

_GONE = {KafkaError.GROUP_ID_NOT_FOUND, KafkaError.INVALID_GROUP_ID}
_ACTIVE = {KafkaError.NON_EMPTY_GROUP, KafkaError.UNKNOWN_MEMBER_ID, KafkaError.REBALANCE_IN_PROGRESS}


class Groups:
    """Fixes positions and deletes groups. Blocking; thread-safe, as the admin client is."""

    def __init__(self, admin: AdminRequests, trouble: Trouble) -> None:
        self._admin = admin
        self._trouble = trouble

    def fix_position(self, group: str, topic: str, partitions: list[int], *, newest: bool) -> bool:
        """Commit an offset for every partition that has none.

        In a new group that is the end of the topic or its beginning. In a group that has a position already, a
        partition without one was added later, and the group reads it from its first record.

        Returns:
            Whether there was something to commit. Then the caller must join the group before it reports success: once
            the group has a member, nobody else can move its position.

        Raises:
            TemporaryError: no broker answers, or the host stops. PermanentError: the bus lacks the permission.
        """
        try:
            return self._fix_position(group, topic, partitions, newest=newest)
        except KafkaException as error:
            if error_code(error) in _ACTIVE:
                # Another worker reads already. Partitions that were added since start at their oldest by themselves.
                return True
            raise self._trouble.as_error(f"group {group}", error) from None

    def delete(self, group: str) -> bool:
        """Delete the group. False if it still has members, the last of which deletes it.

        Raises:
            TemporaryError: no broker answers, they reject it, or the host stops.
        """
        futures = self._admin.client.delete_consumer_groups([group], request_timeout=self._admin.timeout)
        try:
            self._admin.results(futures)
        except KafkaException as error:
            if error_code(error) in _ACTIVE:
                return False
            if error_code(error) not in _GONE:
                failure = self._trouble.as_error(f"group {group}", error)
                raise TemporaryError(str(failure)) from None
        return True

    def _fix_position(self, group: str, topic: str, partitions: list[int], *, newest: bool) -> bool:
        client, timeout = self._admin.client, self._admin.timeout
        asked = ConsumerGroupTopicPartitions(group, [TopicPartition(topic, number) for number in partitions])
        (found,) = self._admin.results(client.list_consumer_group_offsets([asked], request_timeout=timeout))
        missing = [entry.partition for entry in found.topic_partitions if entry.offset < 0]
        if not missing:
            return False
        is_new = len(missing) == len(partitions)
        spec = OffsetSpec.latest() if newest and is_new else OffsetSpec.earliest()
        listed = client.list_offsets(
            {TopicPartition(topic, number): spec for number in missing}, request_timeout=timeout
        )
        ends = self._admin.results(listed)
        offsets = [
            TopicPartition(topic, partition.partition, end.offset) for partition, end in zip(listed, ends, strict=True)
        ]
        commit = ConsumerGroupTopicPartitions(group, offsets)
        (done,) = self._admin.results(client.alter_consumer_group_offsets([commit], request_timeout=timeout))
        failed = next((entry.error for entry in done.topic_partitions if entry.error is not None), None)
        if failed is not None:
            raise KafkaException(failed)
        return True
