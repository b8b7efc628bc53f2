"""Driver: the consumer loops of a worker, one for each subscription."""

from __future__ import annotations

import threading

from bus_core import SubscriptionReference
from kafka_bus.consumer_loop import ConsumerLoop


class ConsumerLoops:
    """Thread-safe. Hooks call it on the monitor's threads, and the host's shutdown does."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards `_loops`; no loop is paused or closed while it is held
        self._loops: dict[SubscriptionReference, ConsumerLoop] = {}

    def get(self, subscription: SubscriptionReference) -> ConsumerLoop | None:
        with self._lock:
            return self._loops.get(subscription)

    def add(self, loop: ConsumerLoop) -> None:
        with self._lock:
            self._loops[loop.identity.subscription] = loop

    def remove(self, subscription: SubscriptionReference) -> None:
        """Close the subscription's loop, if there is one, and withdraw its report. Blocks until that is done."""
        with self._lock:
            loop = self._loops.pop(subscription, None)
        if loop is not None:
            loop.close()
            loop.withdraw_report()

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

    def close(self) -> None:
        """Close all loops, side by side: leaving a group takes a round trip to the brokers."""
        with self._lock:
            loops, self._loops = list(self._loops.values()), {}
        threads = [threading.Thread(target=loop.close, name="kafka-close", daemon=True) for loop in loops]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
