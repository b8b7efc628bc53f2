"""Names on the Kafka side: a channel's topic and a subscription's consumer group."""

from __future__ import annotations

import re

from bus_core import BusReference, ChannelReference, PermanentError, SubscriptionReference

MAX_LENGTH = 249
"""Of a topic's name (Apache Kafka, `Topic.MAX_NAME_LENGTH`)."""

_LEGAL = re.compile(r"[A-Za-z0-9._-]+")


def topic_name(template: str, bus: BusReference, channel: ChannelReference) -> str:
    """The topic of a channel.

    Raises:
        PermanentError: Kafka would refuse the name.
    """
    name = template.format(namespace=channel.namespace, bus=bus.name, channel=channel.name)
    if len(name) > MAX_LENGTH:
        raise PermanentError(
            f"the topic's name would have {len(name)} characters and Kafka allows {MAX_LENGTH}: "
            f"shorten kafka.topic or the channel's name ({name[:60]}…)"
        )
    if not _LEGAL.fullmatch(name) or name in {".", ".."}:
        raise PermanentError(
            f"Kafka does not allow the topic name {name!r}: it may hold letters, digits, dots, underscores and dashes; "
            "change kafka.topic"
        )
    return name


def collision(name: str, topics: set[str]) -> str | None:
    """An existing topic that Kafka takes for the same in its metrics, where dots and underscores are one."""
    folded = name.replace(".", "_")
    return next((other for other in topics if other != name and other.replace(".", "_") == folded), None)


def group_name(topic: str, subscription: SubscriptionReference) -> str:
    """The consumer group of a subscription: it reads as a part of its channel's topic."""
    return f"{topic}.{subscription.name}"
