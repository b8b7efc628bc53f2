"""Delivery: the two interfaces between the engine and its executors (threads, event loop)."""

from __future__ import annotations

import threading
from typing import Protocol

from bus_core.data_plane.delivery.attempt import AttemptResult, Attempts, Outgoing
from bus_core.data_plane.delivery.completion import Completion
from bus_core.data_plane.delivery.lane import QueuedEvent


class Executor(Protocol):
    """Takes events from the engine, makes the attempts, and settles them."""

    def wake(self, events: int) -> None:
        """Wake for new work, up to this many attempts. Engine's lock held; never blocks, never raises."""

    def in_flight(self) -> list[QueuedEvent]:
        """The events that were taken but not settled. Engine's lock held."""

    def close(self) -> None:
        """Take no more events. Without the lock; does not wait for attempts."""


class Engine(Protocol):
    """The engine's methods for executors. Call all except `flush` and `tend` with the lock held.

    Attributes:
        lock: guards all state of lanes, and the events that an executor has taken but not settled.
        attempts: makes attempts; needs no lock.
    """

    lock: threading.Lock
    attempts: Attempts

    @property
    def has_loop_work(self) -> bool:
        """Whether there may be work for the loop executor. May be read without the lock."""

    @property
    def has_thread_work(self) -> bool:
        """Whether there may be work for a thread. May be read without the lock."""

    def take_for_thread(self) -> QueuedEvent | None:
        """The next event for a thread, now in flight."""

    def take_for_loop(self, now: float, most: int) -> list[QueuedEvent]:
        """The next events for the loop executor, now in flight."""

    def settle(
        self,
        event: QueuedEvent,
        result: AttemptResult,
        now: float,
        completions: list[Completion],
        *,
        has_idle_connection: bool,
        cpu_cost: float = 0.0,
    ) -> None:
        """Settle an ended attempt. Never raises.

        Args:
            event: was in flight.
            result: of the attempt; without a reply.
            now: the monotonic clock.
            completions: gets the completions that the caller runs after it has released the lock.
            has_idle_connection: the loop executor can use an open connection for the lane's next event.
            cpu_cost: CPU seconds of the attempt, measured only for unhealthy lanes.
        """

    def become_reply(self, event: QueuedEvent, reply: Outgoing) -> None:
        """Replace an event in flight by its reply, which the same executor sends next."""

    def put_back(self, event: QueuedEvent, now: float, completions: list[Completion]) -> None:
        """Give an event for which the loop executor has no connection to a thread."""

    def open_loop(self, is_open: bool) -> None:
        """Start or stop giving events to the loop executor."""

    def release_due(self) -> tuple[float | None, bool]:
        """Make due retries ready. Returns the seconds until the next one, and whether work waits for a thread."""

    def tend(self) -> None:
        """Do the timer's work if its thread could not be started. Without the lock."""

    def flush(self) -> None:
        """Pass counts to telemetry. Without the lock."""
