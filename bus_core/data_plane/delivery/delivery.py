"""Delivery: the public face of a worker's deliveries. The engine does the work."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Callable
from concurrent.futures import Future

from bus_core.data_plane.delivery.attempt import Attempts
from bus_core.data_plane.delivery.engine import DeliveryEngine
from bus_core.data_plane.delivery.lane import LaneLimits, Target
from bus_core.data_plane.delivery.registry import LaneRegistry
from bus_core.data_plane.delivery.report import Reporter, SubscriberReport
from bus_core.data_plane.delivery.validation import validate_target
from bus_core.data_plane.dispatch import MessageDispatcher
from bus_core.driver.hookspecs import Outcome
from bus_core.model.message import Message
from bus_core.model.references import ChannelReference, SubscriptionReference


class Delivery:
    """Takes events for subscriptions and settles each: delivered, dead-lettered, or counted and logged.

    Args:
        dispatcher: does the HTTP; its owner closes it.
        limits: the bounds of each lane, also of dead-letter sinks.
        prompt_threads: the number of threads that prompt subscribers share.
        max_threads: the limit of threads, including those that wait for a hung subscriber.
        jitter: the source of jitter in [0, 1).
        report: called when a subscription's events are given up (a reason and a message), and when one has arrived
            again (an empty reason). Called on the timer's thread; it must not block.

    Every method is thread-safe; `publish` and `submit` never block. If a thread cannot be started, this is logged, and
    events wait until a thread can be started.
    """

    def __init__(
        self,
        dispatcher: MessageDispatcher,
        *,
        limits: LaneLimits | None = None,
        prompt_threads: int = 16,
        max_threads: int = 256,
        jitter: Callable[[], float] = random.random,
        report: SubscriberReport | None = None,
    ) -> None:
        self._lock = threading.Lock()  # the engine's lock: guards lanes, scheduler, drain, and what is in flight
        self._lanes = LaneRegistry(limits or LaneLimits())
        self._engine = DeliveryEngine(
            dispatcher,
            Attempts(dispatcher, jitter),
            self._lanes,
            self._lock,
            Reporter(self._lock, self._lanes, report),
            prompt_threads=prompt_threads,
            max_threads=max_threads,
        )

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """Let this event loop make the attempts that need no thread. Called on its thread. Else threads make all."""
        self._engine.attach(loop)

    def open(self, target: Target) -> None:
        """Open a subscription's lane, or change the lane's target; the events in it stay.

        Raises:
            PermanentError: a destination cannot be used, or dead letters would go to the channel they come from.
        """
        validate_target(target)
        self._engine.open(target)

    def close(self, subscription: SubscriptionReference) -> None:
        """Close the lane of a deleted subscription: drop and count its waiting events, and cancel submitted ones."""
        self._engine.close(subscription)

    def publish(self, channel: ChannelReference, message: Message) -> None:
        """Queue an event for all subscriptions of a channel, or for none. See `bus_core.driver.hookspecs.Publish`.

        Raises:
            BusyError: a lane that still makes progress is full, or the bus is stopping; nothing was queued.
        """
        lanes = self._lanes.by_channel.get(channel)
        if lanes:
            self._engine.publish(lanes, message)

    def submit(
        self, subscription: SubscriptionReference, message: Message, *, key: str | None = None
    ) -> Future[Outcome]:
        """Queue an event for one subscription. See `bus_core.driver.hookspecs.Submit`.

        Raises:
            BusyError: the lane is full or stalled, or the bus is stopping.
            UnknownSubscriptionError: the subscription has no lane.
        """
        return self._engine.submit(subscription, message, key)

    def depths(self) -> dict[str, int]:
        """The number of events in each lane, by the name of its subscription or sink."""
        with self._lock:
            return {lane.name: lane.events for lane in self._lanes}

    def drain(self, timeout: float) -> int:
        """Refuse new events, and wait until all events are settled, at most `timeout` seconds.

        Events whose next attempt is due only after that time are given up at once.

        Returns:
            The number of events given up: dropped and counted as `shutdown`, or cancelled for their driver.
        """
        return self._engine.drain(timeout)
