"""Driver: the limits for the size of an event, by topic (`max.message.bytes`)."""

from __future__ import annotations

import threading
import time
from typing import Protocol

MAX_TOPICS = 20_000
"""Limits that a worker remembers. A worker that only accepts events of a channel does not hear of its deletion."""

REFRESH_EVERY = 5.0
"""Seconds between two requests for a topic's limit that events over it may cause."""


class AskLimit(Protocol):
    """Asks the brokers for a topic's limit; see `kafka_bus.topic.Topics.max_message_bytes`."""

    def max_message_bytes(self, name: str) -> int: ...


class TopicLimits:
    """The limits that are known, in bytes. Thread-safe."""

    def __init__(self, topics: AskLimit) -> None:
        self._topics = topics
        self._lock = threading.Lock()  # guards both tables; `get` reads without it, since a dict's `get` is atomic
        self._limits: dict[str, int] = {}
        self._asked_at: dict[str, float] = {}  # by topic: monotonic time of the last refresh

    def get(self, topic: str) -> int | None:
        """The limit; None if it is unknown."""
        return self._limits.get(topic)

    def values(self) -> set[int]:
        """All known limits."""
        with self._lock:
            return set(self._limits.values())

    def learn(self, topic: str) -> None:
        """Ask for the topic's limit. Blocks; raises as `Topics.max_message_bytes` does."""
        limit = self._topics.max_message_bytes(topic)
        with self._lock:
            self._limits.pop(topic, None)
            self._limits[topic] = limit
            while len(self._limits) > MAX_TOPICS:
                del self._limits[next(iter(self._limits))]

    def refresh(self, topic: str) -> bool:
        """Ask again, unless that was done less than `REFRESH_EVERY` ago. Blocks; raises as `learn` does.

        Returns:
            Whether the limit is another one now.
        """
        now = time.monotonic()
        with self._lock:
            self._asked_at = {name: at for name, at in self._asked_at.items() if now - at < REFRESH_EVERY}
            if topic in self._asked_at:
                return False
            self._asked_at[topic] = now
        before = self.get(topic)
        self.learn(topic)
        return self.get(topic) != before

    def forget(self, topic: str) -> None:
        with self._lock:
            self._limits.pop(topic, None)
            self._asked_at.pop(topic, None)
