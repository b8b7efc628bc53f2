"""Delivery: one attempt. Sends one queued event and makes a result of the answer: no lock, no thread, no lane state."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from bus_core.data_plane.delivery import backoff
from bus_core.data_plane.delivery.dead_letter import LoopError, dead_letter, is_dead_letter
from bus_core.data_plane.delivery.lane import Lane, Leg, QueuedEvent, Target
from bus_core.data_plane.dispatch import Encoded, MessageDispatcher, Reply, Route, encode
from bus_core.model.errors import DispatchError
from bus_core.model.message import Message
from bus_core.telemetry import get_logger

MAX_HOPS = 32
"""How many replies may lead to an event before it counts as a loop."""

_EVENT = Leg.EVENT  # an attribute of an enum costs 40 ns in Python 3.11

log = get_logger(__name__)


class Outgoing(NamedTuple):
    """A reply or a dead letter, ready to be sent."""

    message: Message
    encoded: Encoded


@dataclass(frozen=True, slots=True)
class AttemptResult:
    """The result of an attempt. Without an error and without a reply it is a success.

    Attributes:
        error: why the attempt failed; None if it did not.
        wait: seconds until the next attempt; None if there is none.
        dead_letter: goes to the dead-letter sink.
        final: without a dead letter: True for a refusal that no retry can change, False when all tries are used.
        reply: the subscriber's reply, which is sent next, at once.
    """

    error: DispatchError | None = None
    wait: float | None = None
    dead_letter: Outgoing | None = None
    final: bool = False
    reply: Outgoing | None = None


DELIVERED = AttemptResult()


def is_circling(message: Message) -> bool:
    """Whether a dead letter has been passed on too often. Sinks that are channels can form a loop. Each dead letter
    counts as a hop, so the loop ends."""
    return is_dead_letter(message) and message.hops > MAX_HOPS


class Attempts:
    """Makes attempts, on the calling thread. Thread-safe.

    Args:
        dispatcher: does the HTTP.
        random: the source of jitter, in [0, 1).
        clock: Unix time in seconds, for dead letters and for `Retry-After` dates.
    """

    def __init__(
        self, dispatcher: MessageDispatcher, random: Callable[[], float], clock: Callable[[], float] = time.time
    ) -> None:
        self._dispatcher = dispatcher
        self._random = random
        self._clock = clock

    def run(self, event: QueuedEvent, target: Target) -> AttemptResult:
        """One attempt that waits for its answer.

        Args:
            event: in flight, so no other thread writes to it.
            target: the subscription's target, also for a dead letter.
        """
        try:
            reply = self._dispatcher.send(self.route(event, target), event.encoded, timeout=target.spec.timeout)
            return self.answered(event, target, reply)
        except Exception as error:
            return self.failed(event, target, error)

    def route(self, event: QueuedEvent, target: Target) -> Route:
        """The route of the next attempt.

        Raises:
            DestinationError: the destination is invalid.
            LoopError: too many replies led to this event.
        """
        lane = event.lane
        if event.leg is _EVENT:
            destination = target.subscriber or target.reply_to
        elif event.leg is Leg.DEAD_LETTER:
            destination = lane.sink
        else:
            destination = target.reply_to
            if event.message.hops > MAX_HOPS:
                raise LoopError(f"{event.message.hops} replies led to this event; at most {MAX_HOPS} are allowed")
        route = lane.routes.get(destination)
        if route is None:
            route = lane.routes[destination] = self._dispatcher.route(destination, target.channel.namespace)
        return route

    def forget_routes(self, lane: Lane) -> None:
        """Forget the lane's routes, because its destinations have changed, or may have changed after a failure."""
        lane.routes.clear()

    def has_idle_connection(self, lane: Lane, target: Target) -> bool:
        """Whether an open connection for the lane's next event exists that the loop executor can use."""
        route = lane.routes.get(lane.sink or target.subscriber or target.reply_to)
        return route is not None and route.is_open

    def answered(self, event: QueuedEvent, target: Target, reply: Reply) -> AttemptResult:
        """The result of a 2xx answer.

        Raises:
            InvalidMessageError: the reply cannot be sent as an event.
        """
        if not reply.body or event.leg is not _EVENT or not target.subscriber or not target.reply_to:
            return DELIVERED
        message = self._dispatcher.reply_to_message(reply, event.message)
        if message is None:
            return DELIVERED
        return AttemptResult(reply=Outgoing(message, encode(message)))

    def failed(self, event: QueuedEvent, target: Target, error: Exception) -> AttemptResult:
        """The result of an attempt that raised this error. Never raises."""
        if not isinstance(error, DispatchError):  # a fault of ours must neither end the thread nor lose the event
            log.exception("an attempt failed unexpectedly", subscription=str(target.subscription), exc_info=error)
            error = DispatchError(f"internal error: {type(error).__name__}: {error}")
        # The route may be the reason: a channel was added or deleted, or an address has changed.
        self.forget_routes(event.lane)
        try:
            return self._judge(event, target, error)
        except Exception:
            log.exception("a failed attempt could not be judged", subscription=str(target.subscription))
            spent = event.leg is not Leg.DEAD_LETTER and event.attempts > (target.spec.retry or 0)
            return AttemptResult(error, wait=None if spent else backoff.MAX_BACKOFF)

    def shed(self, message: Message, target: Target, error: DispatchError) -> Outgoing:
        """The dead letter of an event that was never tried."""
        now = self._now()
        letter = dead_letter(message, target.subscriber or target.reply_to, error, 0, now, now)
        return Outgoing(letter, encode(letter))

    def _now(self) -> dt.datetime:
        return dt.datetime.fromtimestamp(self._clock(), dt.UTC)

    def _judge(self, event: QueuedEvent, target: Target, error: DispatchError) -> AttemptResult:
        spec = target.spec
        retryable = backoff.is_retryable(error) and not isinstance(error, LoopError)
        wait = backoff.delay(event.attempts, spec, self._random)
        if event.leg is Leg.DEAD_LETTER:
            # A sink has no other sink: its events wait until it takes them, whatever it answers.
            asked = backoff.retry_after(error, spec.retry_after_max or 0.0, self._now())
            return AttemptResult(error, wait=max(wait, asked))
        if retryable and event.attempts <= (spec.retry or 0):
            asked = backoff.retry_after(error, spec.retry_after_max or 0.0, self._now())
            return AttemptResult(error, wait=max(wait, asked))
        if is_circling(event.message):
            loop = LoopError(f"sent from sink to sink {MAX_HOPS} times; the last error: {error}")
            return AttemptResult(loop, final=True)
        if not spec.dead_letter_sink:
            return AttemptResult(error, final=not retryable)
        destination = target.reply_to if event.leg is Leg.REPLY else target.subscriber or target.reply_to
        now = self._now()
        first = now - dt.timedelta(seconds=max(time.monotonic() - event.first_attempt, 0.0))
        letter = dead_letter(event.message, destination, error, event.attempts, first, now)
        return AttemptResult(error, dead_letter=Outgoing(letter, encode(letter)), final=not retryable)
