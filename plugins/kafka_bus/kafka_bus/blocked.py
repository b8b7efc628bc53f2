"""What holds a group up, known to each of its members: a mark beside the committed offset of the partition.

A partition is read by one member, and it need not be the one that writes conditions. The offset is where the group
stands anyway, and Kafka keeps a text with it (`metadata` of OffsetCommit), so the mark needs no room of its own: it
goes to whoever asks for the offset, outlives its writer, and is gone with the next commit that goes further.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from confluent_kafka import Consumer, TopicPartition

MARK = "blocked"

_TIMEOUT = 1.0  # seconds; it is asked on the thread that reads


def marks_of_others(consumer: Consumer, topic: str, mine: Collection[int]) -> dict[int, int]:
    """The partitions that other members have marked, and the offset each is held up at. Blocks for up to 2 s.

    Args:
        mine: the partitions of this member, which it knows better.

    Raises:
        KafkaException: the brokers do not say.
    """
    known = consumer.list_topics(topic, timeout=_TIMEOUT).topics[topic].partitions
    others = [TopicPartition(topic, number) for number in known if number not in mine]
    found = consumer.committed(others, timeout=_TIMEOUT) if others else []
    return {entry.partition: entry.offset for entry in found if entry.metadata == MARK and entry.error is None}


def sentence(topic: str, blocked: Mapping[int, int]) -> str | None:
    """For a condition; None where nothing is held up."""
    if not blocked:
        return None
    places = ", ".join(f"partition {number} at offset {offset}" for number, offset in sorted(blocked.items()))
    return f"{topic}: {places}: an event that cannot be delivered holds up what comes after it"
