"""Delivery: the lanes of one worker, put together with the threads that empty them."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from functools import partial

from bus_core import telemetry
from bus_core.data_plane.delivery.attempt import DONE, Exchanger, Verdict, is_circling
from bus_core.data_plane.delivery.completion import Callback, fail, resolve, run_all
from bus_core.data_plane.delivery.dead_letter import StalledError, reason
from bus_core.data_plane.delivery.lane import Item, Lane, LaneLimits, Leg, Target
from bus_core.data_plane.delivery.loop_executor import Flights
from bus_core.data_plane.delivery.scheduler import Board
from bus_core.data_plane.delivery.thread_executor import Crew
from bus_core.data_plane.delivery.validation import check
from bus_core.data_plane.dispatch import MessageDispatcher, encode
from bus_core.driver.hookspecs import Outcome
from bus_core.model.errors import (
    BusyError,
    UnavailableError,
    UnknownSubscriptionError,
)
from bus_core.model.message import Message
from bus_core.model.references import ChannelReference, SubscriptionReference

log = telemetry.get_logger(__name__)


class Delivery:
    """Takes events for subscriptions and settles each: delivered, dead-lettered, or counted and logged.

    Args:
        dispatcher: does the HTTP; closed by its owner, not here.
        limits: the bounds of each lane, those of dead-letter sinks included.
        prompt_threads: how many threads prompt subscribers share.
        max_threads: how many there are at most, those that wait for a hung subscriber included.
        jitter: the source of jitter in [0, 1).
        report: told when a subscription's events are given up (a reason, and what was the matter), and when one has
            arrived again (an empty reason).

    Every method is thread-safe; `publish` and `submit` never block.
    """

    def __init__(
        self,
        dispatcher: MessageDispatcher,
        *,
        limits: LaneLimits | None = None,
        prompt_threads: int = 16,
        max_threads: int = 256,
        jitter: Callable[[], float] = random.random,
        report: Callable[[SubscriptionReference, str, str], None] | None = None,
    ) -> None:
        self._dispatcher = dispatcher
        self._limits = limits or LaneLimits()
        self._lock = threading.Lock()
        self._board = Board(suspects=max_threads // 2)
        self._exchanger = Exchanger(dispatcher, jitter, time.time)
        self._lanes: dict[SubscriptionReference, Lane] = {}
        self._sinks: dict[tuple[str, str], Lane] = {}
        self._by_channel: dict[ChannelReference, tuple[Lane, ...]] = {}
        self._reasons: dict[tuple[str, str], str] = {}
        self._tell = report
        self._refusing = False
        self._over = False  # the drain has given up what was in flight
        self._deadline = float("inf")  # of the drain
        self._given_up = 0
        self._drained = threading.Event()
        self._crew = Crew(
            self._lock, self._take, self._carry_out, self._tick, self._flush, prompt=prompt_threads, cap=max_threads
        )
        self._flights = Flights(
            self._lock, self._board, self._exchanger, dispatcher, self._settle, partial(self._crew.call, 1)
        )

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """Let this event loop deliver what needs no thread. Called on its thread; without it, threads do everything."""
        self._flights.attach(loop)

    def open(self, target: Target) -> None:
        """Give a subscription its lane, or change where an existing one leads; what it holds stays.

        Raises:
            PermanentError: a destination cannot be used, or dead letters would go to the channel they come from.
        """
        check(target)
        with self._lock:
            lane = self._lanes.get(target.subscription)
            if lane is None:
                lane = Lane(str(target.subscription), self._limits, target, time.monotonic())
                self._lanes[target.subscription] = lane
            if lane.target is not None and lane.target.channel != target.channel:
                self._leave_channel(lane, lane.target.channel)
            lane.target = target
            lane.routes = {}
            lanes = self._by_channel.get(target.channel, ())
            if lane not in lanes:  # `publish` reads without the lock: the lane must not be missing for a moment
                self._by_channel[target.channel] = (*lanes, lane)

    def close(self, subscription: SubscriptionReference) -> None:
        """The subscription is gone: what waits in its lane is dropped and counted, submitted events are cancelled."""
        with self._lock:
            lane = self._lanes.pop(subscription, None)
            if lane is None:
                return
            if lane.target is not None:
                self._leave_channel(lane, lane.target.channel)
            callbacks = self._abandon(self._board.empty(lane, time.monotonic()), "unsubscribed")
        run_all(callbacks)
        self._flush()
        self._report(lane)
        telemetry.lane_depth.forget(lane.name)

    def publish(self, channel: ChannelReference, message: Message) -> None:
        """Queue an event for all subscriptions of a channel, or for none. See `bus_core.driver.hookspecs.Publish`."""
        lanes = self._by_channel.get(channel)
        if not lanes:
            return
        parcel = encode(message)
        try:
            with self._lock:
                if self._refusing:
                    raise BusyError("the bus is stopping")
                shed = self._board.publish(lanes, message, parcel, parcel.size, time.monotonic())
                if self._board.has_ready:
                    self._crew.call(len(lanes))
        finally:
            self._flights.go()  # also when it is refused: what makes room is delivering
        for lane in shed:
            self._shed(lane, message)

    def submit(
        self, subscription: SubscriptionReference, message: Message, *, key: str | None = None
    ) -> Future[Outcome]:
        """Queue an event for one subscription. See `bus_core.driver.hookspecs.Submit`."""
        future: Future[Outcome] = Future()
        parcel = encode(message)
        with self._lock:
            if self._refusing:
                raise BusyError("the bus is stopping")
            lane = self._lanes.get(subscription)
            if lane is None:
                raise UnknownSubscriptionError(f"there is no subscription {subscription} in this process")
            self._board.submit(lane, message, parcel, parcel.size, time.monotonic(), key, future)
            if self._board.has_ready:
                self._crew.call(1)
        self._flights.go()
        return future

    def depths(self) -> dict[str, int]:
        """How many events each lane holds, by the name of its subscription or sink."""
        with self._lock:
            return {lane.name: lane.events for lane in self._all_lanes()}

    def drain(self, timeout: float) -> int:
        """Take nothing more in, wait until everything is settled, at most `timeout` seconds.

        What is to be tried again only after that time is given up at once.

        Returns:
            How many events were given up: dropped and counted as `shutdown`, or cancelled for their driver.
        """
        now = time.monotonic()
        with self._lock:
            self._refusing = True
            self._deadline = now + timeout
            callbacks = self._abandon(self._board.withdraw(self._deadline, now), "shutdown")
            if not self._board.events:
                self._drained.set()
            self._rouse(1)  # what stood behind their keys may be ready now
        run_all(callbacks)
        self._drained.wait(timeout)
        now = time.monotonic()
        with self._lock:
            left = [item for lane in self._all_lanes() for item in self._board.empty(lane, now)]
            self._over = True  # what is in flight is given up here, and not once more when it ends
            callbacks = self._abandon([*left, *self._crew.in_flight(), *self._flights.in_flight()], "shutdown")
        run_all(callbacks)
        self._crew.close()
        self._flights.close()
        return self._given_up

    # What follows is called by the crew, `_take` and `_tick` with the lock held.

    def _take(self) -> Item | None:
        item = self._board.take(time.monotonic())
        if self._board.has_warm:  # what a thread has begun, the event loop may go on with
            self._flights.wake()
        return item

    def _rouse(self, items: int) -> None:
        """There may be new work for so many. Lock held."""
        if self._board.has_ready:
            self._crew.call(items)
        if self._board.has_warm:
            self._flights.wake()

    def _carry_out(self, item: Item) -> Callable[[], list[Callback]]:
        target = item.source.target
        assert target is not None  # a sink's lane is never the source of an item
        if not item.suspect:
            return partial(self._land, item, self._exchanger.run(item, target))
        began = time.thread_time()
        verdict = self._exchanger.run(item, target)
        return partial(self._land, item, verdict, time.thread_time() - began)

    def _land(self, item: Item, verdict: Verdict, cost: float = 0.0) -> list[Callback]:
        lane, target = item.lane, item.source.target
        assert target is not None
        lane.warm = verdict is DONE and self._exchanger.is_open(lane, target)
        if verdict.error is not None and not verdict.final:
            lane.toll = 0.0 if self._refusing else cost  # once nothing comes in, there is nobody to protect
        return self._settle(item, verdict)

    # This also by the flights, with the lock held.

    def _settle(self, item: Item, verdict: Verdict) -> list[Callback]:
        now = time.monotonic()
        board, source = self._board, item.source
        callbacks: list[Callback] = []
        if verdict is DONE:
            board.finish(item, now, success=True)
            letter = item.leg is Leg.LETTER
            if not letter:
                source.trouble = ""
            source.count("dead_lettered" if letter else "delivered")
            if item.future is not None:
                callbacks = [partial(resolve, item.future, Outcome.DEAD_LETTERED if letter else Outcome.DELIVERED)]
        elif item.lane.closed:
            # Its subscription went, or the drain gave it up, while it was in flight.
            board.finish(item, now)
            if not self._over:
                callbacks = self._abandon([item], "unsubscribed")
        elif verdict.wait is not None and now + verdict.wait > self._deadline:
            board.finish(item, now)
            callbacks = self._abandon([item], "shutdown")
        elif verdict.wait is not None:
            source.count("retried")
            if item.parcel.size != item.size:
                board.grow(item, item.parcel.size)
            board.retry(item, now + verdict.wait, now)
            self._crew.due(now + verdict.wait)
        else:
            callbacks = self._give_up(item, verdict, now)
        if source.closed and source.counts:
            callbacks.append(partial(self._report, source))  # it is in no list any more
        if self._refusing and not board.events:
            self._drained.set()
        return callbacks

    def _give_up(self, item: Item, verdict: Verdict, now: float) -> list[Callback]:
        assert verdict.error is not None
        if not verdict.final:
            item.source.trouble = str(verdict.error)
        target = item.source.target
        assert target is not None
        letter = verdict.letter if target.spec.dead_letter_sink else None  # the sink may have been taken away meanwhile
        if letter is not None:
            message, parcel = letter
            sink = self._sink(target)
            if sink.fits(parcel.size):
                self._board.finish(item, now)
                self._board.send_letter(item, sink, message, parcel, parcel.size, now)
                self._rouse(1)
                return []
        self._board.finish(item, now)
        full = letter is not None
        if item.future is None or (verdict.final and not full):
            why = "sink_full" if full else reason(verdict.error) if verdict.final else "unavailable"
            self._drop(item.source, why, str(verdict.error))
        if item.future is None:
            return []
        if verdict.final and not full:
            return [partial(resolve, item.future, Outcome.REJECTED)]
        return [partial(fail, item.future, UnavailableError(str(verdict.error)))]

    def _shed(self, lane: Lane, message: Message) -> None:
        """A stalled lane's copy of a published event: to the sink, or dropped."""
        target = lane.target
        assert target is not None
        error = StalledError(f"the lane of subscription {lane.name} is full and has had no success for too long")
        if not target.spec.dead_letter_sink or is_circling(message):
            with self._lock:
                self._drop(lane, "loop" if is_circling(message) else "stalled", str(error))
            return
        letter, parcel = self._exchanger.shed(message, target, error)
        with self._lock:
            sink = self._sink(target)
            if sink.fits(parcel.size):
                item = Item(lane, letter, parcel, parcel.size, time.monotonic())
                self._board.send_letter(item, sink, letter, parcel, parcel.size, time.monotonic())
                self._rouse(1)
            else:
                self._drop(lane, "sink_full", str(error))

    def _sink(self, target: Target) -> Lane:
        """The lane of a subscription's dead-letter sink; subscriptions that name the same sink share it."""
        assert target.spec.dead_letter_sink
        key = (target.channel.namespace, target.spec.dead_letter_sink)
        sink = self._sinks.get(key)
        if sink is None:
            sink = Lane(f"sink {key[1]} of {key[0]}", self._limits, None, time.monotonic())
            sink.sink = key[1]
            self._sinks[key] = sink
        return sink

    def _abandon(self, items: Iterable[Item], why: str) -> list[Callback]:
        callbacks: list[Callback] = []
        for item in items:
            self._given_up += why == "shutdown"
            if item.future is not None:
                callbacks.append(item.future.cancel)  # type: ignore[arg-type]  # its answer is of no interest
            else:
                self._drop(item.source, why, "")
        return callbacks

    def _drop(self, lane: Lane, why: str, detail: str) -> None:
        lane.count("dropped", why)
        if detail:
            self._reasons[lane.name, why] = detail

    def _tick(self) -> tuple[float | None, bool]:
        now = time.monotonic()
        woken = self._board.wake(now)
        if woken:
            self._rouse(woken)
        due = self._board.next_due
        return (None if due is None else max(due - now, 0.0)), self._board.has_ready

    def _flush(self) -> None:
        """Hand the counts to telemetry, and say in the log what was dropped: one line a lane and reason."""
        with self._lock:
            lanes = list(self._all_lanes())
            for key in [key for key, sink in self._sinks.items() if not sink.events and not sink.counts]:
                telemetry.lane_depth.forget(self._sinks.pop(key).name)
        for lane in lanes:
            if lane.counts:
                self._report(lane)
            if (
                bool(lane.trouble) != lane.told
                and self._tell is not None
                and lane.target is not None
                and not lane.closed
            ):
                lane.told = bool(lane.trouble)
                self._tell(lane.target.subscription, "SubscriberFailing" if lane.told else "", lane.trouble)
            if lane.events != lane.shown:  # with thousands of lanes, most are as they were
                lane.shown = lane.events
                telemetry.lane_depth.set(lane.shown, lane.name)

    def _report(self, lane: Lane) -> None:
        with self._lock:
            counts, lane.counts = lane.counts, {}
        for what, number in counts.items():
            if what[0] == "dropped":
                telemetry.dropped.inc(lane.name, what[1], by=number)
                detail = self._reasons.pop((lane.name, what[1]), "")
                log.warning("events dropped", subscription=lane.name, reason=what[1], count=number, detail=detail)
            else:
                _COUNTERS[what[0]].inc(lane.name, by=number)

    def _all_lanes(self) -> Iterable[Lane]:
        yield from self._lanes.values()
        yield from self._sinks.values()

    def _leave_channel(self, lane: Lane, channel: ChannelReference) -> None:
        others = tuple(other for other in self._by_channel.get(channel, ()) if other is not lane)
        if others:
            self._by_channel[channel] = others
        else:
            self._by_channel.pop(channel, None)


_COUNTERS = {
    "delivered": telemetry.delivered,
    "retried": telemetry.retried,
    "dead_lettered": telemetry.dead_lettered,
    "refusals": telemetry.lane_refusals,
}
