"""Driver: the consumer loops of a worker, one for each subscription."""

from __future__ import annotations

import threading
import time

from bus_core import SubscriptionReference, TemporaryError
from kafka_bus.consumer_loop import ConsumerLoop

_SLICE = 0.1
"""Seconds between two looks at `stopping`."""


class ConsumerLoops:
    """Thread-safe. Hooks call it on the monitor's threads, and so does the host's shutdown.

    Args:
        stopping: once it is set, no hook waits for a loop to end.
    """

    def __init__(self, stopping: threading.Event) -> None:
        self._stopping = stopping
        self._lock = threading.Lock()  # guards `_loops`; no loop is paused or closed while it is held
        self._loops: dict[SubscriptionReference, ConsumerLoop] = {}

    def get(self, subscription: SubscriptionReference) -> ConsumerLoop | None:
        with self._lock:
            return self._loops.get(subscription)

    def add(self, loop: ConsumerLoop) -> None:
        """Add a loop that has started. If the host stops already, pause it."""
        with self._lock:
            self._loops[loop.identity.subscription] = loop
        if self._stopping.is_set():
            loop.pause()

    def remove(self, subscription: SubscriptionReference) -> None:
        """Close the subscription's loop, if there is one, and withdraw its report.

        Raises:
            TemporaryError: the host stops before the loop has ended.
        """
        with self._lock:
            loop = self._loops.pop(subscription, None)
        if loop is not None:
            self.wait_closed(loop)
            loop.withdraw_report()

    def wait_closed(self, loop: ConsumerLoop) -> None:
        """Close a loop. Raises TemporaryError if the host stops before the loop has ended."""
        while not loop.close(_SLICE):
            if self._stopping.is_set():
                raise TemporaryError(f"the host stops before a consumer has left {loop.identity.group}")

    def read_topic(self, topic: str) -> bool:
        """Whether one of the loops reads the topic."""
        with self._lock:
            return any(loop.identity.topic == topic for loop in self._loops.values())

    def pause(self) -> None:
        """Pause all loops. Returns at once."""
        with self._lock:
            loops = list(self._loops.values())
        for loop in loops:
            loop.pause()

    def close(self, deadline: float) -> list[ConsumerLoop]:
        """Close all loops, side by side: leaving a group takes a round trip to the brokers.

        Args:
            deadline: monotonic time in seconds, until which it waits.

        Returns:
            The loops that have not ended. Their brokers do not answer.
        """
        with self._lock:
            loops, self._loops = list(self._loops.values()), {}
        for loop in loops:
            loop.leave()
        return [loop for loop in loops if not loop.close(max(deadline - time.monotonic(), 0.0))]
