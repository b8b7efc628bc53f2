"""What holds a group up, known to each of its members: a mark beside the committed offset of the partition.

A partition is read by one member, and it need not be the one that writes conditions. The offset is where the group
stands anyway, and Kafka keeps a text with it (`metadata` of OffsetCommit), so the mark needs no room of its own: it
goes to whoever asks for the offset, outlives its writer, and is gone with the next commit that goes further.
"""

from __future__ import annotations

from collections.abc import Mapping

from confluent_kafka import Consumer, TopicPartition

MARK = "blocked"

_TIMEOUT = 1.0  # seconds; it is asked on the thread that reads


def marks(consumer: Consumer, topic: str) -> dict[int, int]:
    """The partitions of the consumer's group that are marked, and the offset each is held up at. Blocks for up to 2 s.

    Raises:
        KafkaException: the brokers do not say.
    """
    known = consumer.list_topics(topic, timeout=_TIMEOUT).topics[topic].partitions
    found = consumer.committed([TopicPartition(topic, number) for number in known], timeout=_TIMEOUT) if known else []
    return {entry.partition: entry.offset for entry in found if entry.metadata == MARK and entry.error is None}


def sentence(topic: str, blocked: Mapping[int, int]) -> str | None:
    """For a condition; None where nothing is held up."""
    if not blocked:
        return None
    places = ", ".join(f"partition {number} at offset {offset}" for number, offset in sorted(blocked.items()))
    return f"{topic}: {places}: an event that cannot be delivered holds up what comes after it"
