"""Delivery: settles events. Counts the delivered ones, and queues the others again, as dead letters, or drops them."""

from __future__ import annotations

import threading
from collections.abc import Iterable

from bus_core.data_plane.delivery.attempt import AttemptResult, Attempts, Outgoing, is_circling
from bus_core.data_plane.delivery.completion import Completion
from bus_core.data_plane.delivery.dead_letter import StalledError, reason
from bus_core.data_plane.delivery.lane import Lane, Leg, QueuedEvent, Target
from bus_core.data_plane.delivery.registry import LaneRegistry
from bus_core.data_plane.delivery.scheduler import Scheduler
from bus_core.driver.hookspecs import Outcome
from bus_core.model.errors import UnavailableError
from bus_core.model.message import Message
from bus_core.telemetry import get_logger

_DEAD_LETTER = Leg.DEAD_LETTER  # an attribute of an enum costs 40 ns in Python 3.11

log = get_logger(__name__)


class Drain:
    """The progress of the drain. Guarded by the engine's lock, except `done`.

    Attributes:
        refusing: the drain has begun; new events are refused.
        over: its time is up; events in flight were given up, and are not counted again when they end.
        deadline: its end, by the monotonic clock; infinity before it begins.
        given_up: how many events it gave up.
        done: set once every event is settled.
    """

    def __init__(self) -> None:
        self.refusing = False
        self.over = False
        self.deadline = float("inf")
        self.given_up = 0
        self.done = threading.Event()


class Settlement:
    """Applies the results of attempts to the scheduler, the counts, and the completions that run after the lock is
    released. Not thread-safe: the engine calls it with its lock held.

    Args:
        scheduler: holds the events.
        attempts: makes dead letters of shed events.
        lanes: finds the lanes of sinks.
        drain: whether the bus is stopping.
    """

    def __init__(self, scheduler: Scheduler, attempts: Attempts, lanes: LaneRegistry, drain: Drain) -> None:
        self._scheduler = scheduler
        self._attempts = attempts
        self._lanes = lanes
        self._drain = drain

    def delivered(self, event: QueuedEvent, now: float, completions: list[Completion]) -> None:
        """Settle an event that the subscriber or the sink took."""
        self._scheduler.finish(event, now, success=True)
        stats = event.source.stats
        is_letter = event.leg is _DEAD_LETTER
        if is_letter:
            stats.dead_lettered += 1
        else:
            stats.failure = ""
            stats.delivered += 1
        if event.future is not None:
            completions.append(Completion(event.future, Outcome.DEAD_LETTERED if is_letter else Outcome.DELIVERED))

    def failed(
        self, event: QueuedEvent, result: AttemptResult, now: float, cpu_cost: float, completions: list[Completion]
    ) -> None:
        """Settle a failed attempt, or an attempt that ended after its event was given up."""
        scheduler, wait = self._scheduler, result.wait
        if result.error is not None and not result.final:
            # When new events are refused, no other subscriber needs protection from this one.
            scheduler.charge(event.lane, 0.0 if self._drain.refusing else cpu_cost)
        if event.lane.closed:
            # While it was in flight, its subscription was deleted, or the drain gave it up.
            scheduler.finish(event, now)
            if not self._drain.over:
                self.abandon([event], "unsubscribed", completions)
        elif wait is not None and now + wait > self._drain.deadline:
            scheduler.finish(event, now)
            self.abandon([event], "shutdown", completions)
        elif wait is not None:
            event.source.stats.retried += 1
            scheduler.retry(event, now + wait, now)
        else:
            self._give_up(event, result, now, completions)

    def _give_up(self, event: QueuedEvent, result: AttemptResult, now: float, completions: list[Completion]) -> None:
        """No attempt follows: the event becomes its dead letter, or is dropped."""
        error, source = result.error, event.source
        assert error is not None
        target = source.target
        assert target is not None  # a sink's lane is never the source of an event
        if not result.final:
            source.stats.failure = str(error)
        self._scheduler.finish(event, now)
        letter = result.dead_letter if target.spec.dead_letter_sink else None  # the sink may have been removed
        if letter is not None and self._to_sink(event, target, letter, now):
            return
        if event.future is None or (result.final and letter is None):
            full, final = letter is not None, result.final
            source.stats.drop("sink_full" if full else reason(error) if final else "unavailable", str(error))
        if event.future is None:
            return
        if result.final and letter is None:
            completions.append(Completion(event.future, Outcome.REJECTED))
        else:
            completions.append(Completion(event.future, error=UnavailableError(str(error))))

    def _to_sink(self, event: QueuedEvent, target: Target, letter: Outgoing, now: float) -> bool:
        """Queue a dead letter in its sink's lane; False if that is full."""
        sink = self._lanes.sink(target, now)
        if not sink.fits(letter.encoded.size):
            return False
        self._scheduler.become_dead_letter(event, sink, letter.message, letter.encoded, now)
        return True

    def shed(self, lane: Lane, message: Message, now: float) -> None:
        """A stalled lane's copy of a published event: to the sink, or dropped."""
        target = lane.target
        assert target is not None
        error = StalledError(f"the lane of subscription {lane.name} is full and has had no success for too long")
        if not target.spec.dead_letter_sink or is_circling(message):
            lane.stats.drop("loop" if is_circling(message) else "stalled", str(error))
            return
        try:
            letter = self._attempts.shed(message, target, error)
        except Exception:  # an internal error must not reach the publisher: the other lanes have the event
            log.exception("the dead letter of a shed event could not be made", subscription=lane.name)
            lane.stats.drop("stalled", str(error))
            return
        event = QueuedEvent(lane, letter.message, letter.encoded)
        if not self._to_sink(event, target, letter, now):
            lane.stats.drop("sink_full", str(error))

    def abandon(self, events: Iterable[QueuedEvent], why: str, completions: list[Completion]) -> None:
        """Give events up that have left their lanes, or that are in flight when the drain ends."""
        for event in events:
            self._drain.given_up += why == "shutdown"
            if event.future is not None:
                completions.append(Completion(event.future))
            else:
                event.source.stats.drop(why)
