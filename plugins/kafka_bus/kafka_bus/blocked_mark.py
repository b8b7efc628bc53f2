"""Driver: the blocked mark, which tells all members of a group which partitions are blocked.

One member reads a partition, and another one may write the conditions. Kafka stores a text beside each committed offset
(`metadata` of OffsetCommit), so the mark needs no storage of its own. Every member can read it, it outlives the member
that wrote it, and the next commit that goes further removes it.
"""

from __future__ import annotations

import contextlib
import threading
import time

from confluent_kafka import KafkaException, TopicPartition

from kafka_bus.clients import Clients

MARK = "blocked"

ASK_EVERY = 5.0
"""Seconds between two rounds of requests for the marks of all groups."""

REST = 10.0
"""The pause after a round is at least this many times as long as the round took."""

_TIMEOUT = 1.0
"""Seconds until a request for metadata or offsets is given up."""


class MarkWatch:
    """The latest known marks of one group. For the consumer's thread; `answer` is for the asker's.

    Without locks: each attribute is written by one thread, and assignments are atomic.
    """

    def __init__(self, group: str, topic: str) -> None:
        self.group = group
        self.topic = topic
        self._generation = 0
        self._answer: tuple[int, dict[int, int]] | None = None
        self._seen: tuple[int, dict[int, int]] | None = None

    @property
    def generation(self) -> int:
        """How often `discard` was called."""
        return self._generation

    def poll(self) -> dict[int, int] | None:
        """The marked partitions with the offsets they are held up at; None if there is no new answer."""
        answer = self._answer
        if answer is self._seen or answer is None:
            return None
        self._seen = answer
        return answer[1] if answer[0] == self._generation else None

    def discard(self) -> None:
        """Ignore a request under way: the answer may be older than the last change of the assignment."""
        self._generation += 1

    def answer(self, generation: int, marked: dict[int, int]) -> None:
        """Give the brokers' answer to a request that was made in this generation."""
        self._answer = generation, marked


class MarkAsker:
    """Asks for the marks of all groups of a worker, on one thread, so that slow brokers delay no consumer.

    Each request has a consumer of its own for that moment. See the decision about reading blocked marks.

    Args:
        stopping: ends the thread.
    """

    def __init__(self, clients: Clients, stopping: threading.Event) -> None:
        self._clients = clients
        self._stopping = stopping
        self._lock = threading.Lock()  # guards `_watches`; nobody is asked while it is held
        self._watches: list[MarkWatch] = []
        threading.Thread(target=self._run, name="kafka-marks", daemon=True).start()

    def add(self, watch: MarkWatch) -> None:
        with self._lock:
            self._watches.append(watch)

    def remove(self, watch: MarkWatch) -> None:
        with self._lock, contextlib.suppress(ValueError):
            self._watches.remove(watch)

    def ask(self, watch: MarkWatch) -> None:
        """Ask the brokers for the marks of one group. Blocks for up to 2 s.

        Raises:
            KafkaException: the brokers do not answer.
        """
        generation = watch.generation
        consumer = self._clients.consumer({"group.id": watch.group, "enable.auto.commit": False})
        try:
            known = consumer.list_topics(watch.topic, timeout=_TIMEOUT).topics[watch.topic].partitions
            asked = [TopicPartition(watch.topic, number) for number in known]
            found = consumer.committed(asked, timeout=_TIMEOUT) if asked else []
        finally:
            consumer.close()
        watch.answer(
            generation, {entry.partition: entry.offset for entry in found if entry.metadata == MARK and not entry.error}
        )

    def _run(self) -> None:
        pause = ASK_EVERY
        while not self._stopping.wait(pause):
            began = time.monotonic()
            self._ask_all()
            pause = max(ASK_EVERY, REST * (time.monotonic() - began))

    def _ask_all(self) -> None:
        with self._lock:
            watches = list(self._watches)
        for watch in watches:
            if self._stopping.is_set():
                return
            try:
                self.ask(watch)
            except KafkaException:
                return  # The brokers do not answer now. The last known marks stay.
            except Exception:
                self._clients.logger.exception("asking for blocked marks failed and goes on", group=watch.group)
