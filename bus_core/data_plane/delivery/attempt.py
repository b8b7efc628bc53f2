"""What is done with one item in flight, and what follows from it: no locks, no threads, no bounds here."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from dataclasses import dataclass

from bus_core.data_plane.delivery import backoff
from bus_core.data_plane.delivery.dead_letter import LoopError, dead_letter, is_dead_letter
from bus_core.data_plane.delivery.lane import Item, Lane, Leg, Target
from bus_core.data_plane.dispatch import Encoded, MessageDispatcher, Reply, Route, encode
from bus_core.model.errors import DispatchError
from bus_core.model.message import Message
from bus_core.telemetry import get_logger

MAX_HOPS = 32
"""How many replies may lead to an event before it counts as a loop."""

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What follows from an exchange.

    Attributes:
        error: None when it succeeded.
        wait: seconds until the next try; None when there is none.
        letter: the dead letter, encoded, when it goes to a sink.
        final: without a letter: True for a refusal that no retry can change, False when the tries are spent.
    """

    error: DispatchError | None = None
    wait: float | None = None
    letter: tuple[Message, Encoded] | None = None
    final: bool = False


DONE = Verdict()


def is_circling(message: Message) -> bool:
    """Whether a dead letter has been passed on too often. Sinks that are channels can lead back to each other; each
    letter counts as a hop, so this ends."""
    return is_dead_letter(message) and message.hops > MAX_HOPS


class Exchanger:
    """Sends items and judges the answers. Thread-safe: its state is the dispatcher's.

    Args:
        dispatcher: does the HTTP.
        random: the source of jitter, in [0, 1).
        clock: Unix time in seconds, for dead letters and for `Retry-After` dates.
    """

    def __init__(self, dispatcher: MessageDispatcher, random: Callable[[], float], clock: Callable[[], float]) -> None:
        self._dispatcher = dispatcher
        self._random = random
        self._clock = clock

    def run(self, item: Item, target: Target) -> Verdict:
        """One exchange, or two where the subscriber replies. `target` is the subscription's, also for a dead letter."""
        try:
            while True:
                route = self.route(item, target)
                reply = self._dispatcher.send(route, item.parcel, timeout=target.spec.timeout)
                if not self.replies(item, target, reply):
                    return DONE
        except Exception as error:
            return self.failed(item, target, error)

    def route(self, item: Item, target: Target) -> Route:
        """Where the item goes next.

        Raises:
            DestinationError: that is no destination.
        """
        if not item.first:
            item.first = self._clock()
        if item.leg is Leg.EVENT:
            destination = target.subscriber or target.reply_to
        else:
            destination = target.reply_to if item.leg is Leg.REPLY else item.lane.sink
        route = item.lane.routes.get(destination)
        if route is None:
            route = self._dispatcher.route(destination, target.channel.namespace)
            item.lane.routes[destination] = route
        return route

    def is_open(self, lane: Lane, target: Target) -> bool:
        """Whether the next event of a lane finds an open connection."""
        route = lane.routes.get(lane.sink or target.subscriber or target.reply_to)
        return route is not None and route.is_open

    def replies(self, item: Item, target: Target, reply: Reply) -> bool:
        """Whether a good answer makes the item its reply, which is to be sent now.

        Raises:
            LoopError: the reply has come round too often.
            InvalidMessageError: the reply is no event that could be sent.
        """
        if not reply.body or item.leg is not Leg.EVENT or not target.subscriber or not target.reply_to:
            return False
        message = self._dispatcher.reply_to_message(reply, item.message)
        if message is None:
            return False
        parcel = encode(message)
        # From here on the item is its reply: whatever fails now, the subscriber does not get the event again.
        item.leg, item.message, item.parcel, item.attempts = Leg.REPLY, message, parcel, 1
        if message.hops > MAX_HOPS:
            raise LoopError(f"{message.hops} replies led to this event, {MAX_HOPS} are allowed")
        return True

    def failed(self, item: Item, target: Target, error: Exception) -> Verdict:
        """What follows from an exchange that raised this."""
        if not isinstance(error, DispatchError):  # a fault of ours must neither end the thread nor lose the event
            log.exception("an exchange failed unexpectedly", subscription=str(target.subscription), exc_info=error)
            error = DispatchError(f"internal error: {type(error).__name__}: {error}")
        # The route may have been the reason: a channel that came or went, an address that changed.
        item.lane.routes.clear()
        try:
            return self._judge(item, target, error)
        except Exception:
            log.exception("a failed exchange could not be judged", subscription=str(target.subscription))
            spent = item.leg is not Leg.LETTER and item.attempts > (target.spec.retry or 0)
            return Verdict(error, wait=None if spent else backoff.MAX_BACKOFF)

    def shed(self, message: Message, target: Target, error: DispatchError) -> tuple[Message, Encoded]:
        """The dead letter of an event that was never tried."""
        letter = dead_letter(message, target.subscriber or target.reply_to, error, 0, self._now(), self._now())
        return letter, encode(letter)

    def _now(self) -> dt.datetime:
        return dt.datetime.fromtimestamp(self._clock(), dt.UTC)

    def _judge(self, item: Item, target: Target, error: DispatchError) -> Verdict:
        spec = target.spec
        looped = isinstance(error, LoopError)
        retryable = backoff.is_retryable(error) and not looped
        wait = backoff.delay(item.attempts, spec, self._random)
        if item.leg is Leg.LETTER:
            # Nothing stands behind a sink: its events wait until it takes them, whatever it answers.
            return Verdict(error, wait=max(wait, backoff.retry_after(error, spec.retry_after_max or 0.0, self._now())))
        if retryable and item.attempts <= (spec.retry or 0):
            asked = backoff.retry_after(error, spec.retry_after_max or 0.0, self._now())
            return Verdict(error, wait=max(wait, asked))
        if is_circling(item.message):
            return Verdict(LoopError(f"sent from sink to sink {MAX_HOPS} times; the last error: {error}"), final=True)
        if not spec.dead_letter_sink:
            return Verdict(error, final=not retryable)
        destination = target.reply_to if item.leg is Leg.REPLY else target.subscriber or target.reply_to
        first = dt.datetime.fromtimestamp(item.first, dt.UTC)
        letter = dead_letter(item.message, destination, error, item.attempts, first, self._now())
        return Verdict(error, letter=(letter, encode(letter)), final=not retryable)
