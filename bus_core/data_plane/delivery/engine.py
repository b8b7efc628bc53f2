"""Delivery: the engine. It owns the lock and the scheduler, gives events to executors, and settles ended attempts."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future

from bus_core.data_plane.delivery.attempt import DELIVERED, AttemptResult, Attempts, Outgoing
from bus_core.data_plane.delivery.completion import Completion, run_all
from bus_core.data_plane.delivery.executor import Executor
from bus_core.data_plane.delivery.lane import Lane, QueuedEvent, Target
from bus_core.data_plane.delivery.loop_executor import LoopExecutor
from bus_core.data_plane.delivery.registry import LaneRegistry
from bus_core.data_plane.delivery.report import Reporter
from bus_core.data_plane.delivery.scheduler import Scheduler
from bus_core.data_plane.delivery.settlement import Drain, Settlement
from bus_core.data_plane.delivery.thread_executor import ThreadExecutor
from bus_core.data_plane.dispatch import MessageDispatcher, encode
from bus_core.driver.hookspecs import Outcome
from bus_core.model.errors import BusyError, UnknownSubscriptionError
from bus_core.model.message import Message
from bus_core.model.references import SubscriptionReference
from bus_core.telemetry import get_logger

_TEND_EVERY = 0.1
"""Seconds. If the timer's thread could not be started, a drain releases due retries itself at this interval."""

log = get_logger(__name__)


class DeliveryEngine:
    """See `executor.Engine` for the methods that executors call, and `Delivery` for the others.

    Args:
        dispatcher: does the HTTP.
        attempts: makes attempts.
        lanes: all lanes.
        lock: guards lanes, scheduler, drain, and what executors have in flight. Never held during HTTP, callbacks of
            drivers, or calls of telemetry.
        reporter: passes counts to telemetry.
        prompt_threads: how many threads prompt subscribers share.
        max_threads: how many threads there are at most.
    """

    def __init__(
        self,
        dispatcher: MessageDispatcher,
        attempts: Attempts,
        lanes: LaneRegistry,
        lock: threading.Lock,
        reporter: Reporter,
        *,
        prompt_threads: int,
        max_threads: int,
    ) -> None:
        self.lock = lock
        self.attempts = attempts
        self._lanes = lanes
        self._reporter = reporter
        self._scheduler = Scheduler(max_probes=max(max_threads // 2, 1))
        self._drain = Drain()
        self._settlement = Settlement(self._scheduler, attempts, lanes, self._drain)
        self._threads = ThreadExecutor(self, prompt=prompt_threads, cap=max_threads)
        self._loop = LoopExecutor(self, dispatcher)

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """Let the loop executor deliver on this loop. Called on its thread."""
        self._loop.attach(loop)

    def open(self, target: Target) -> None:
        """Open a subscription's lane, or change the lane's target."""
        with self.lock:
            lane = self._lanes.open(target, time.monotonic())
            self.attempts.forget_routes(lane)
            self._threads.start()

    def close(self, subscription: SubscriptionReference) -> None:
        """Drop the waiting events of a subscription's lane, and forget the lane."""
        completions: list[Completion] = []
        with self.lock:
            lane = self._lanes.remove(subscription)
            if lane is None:
                return
            self._settlement.abandon(self._scheduler.close(lane, time.monotonic()), "unsubscribed", completions)
            self._reporter.add_closed(lane)
        run_all(completions)
        self._reporter.flush()
        self._reporter.forget(lane)

    def publish(self, lanes: Sequence[Lane], message: Message) -> None:
        """Queue an event in every lane, or in none.

        Raises:
            BusyError: a lane that still makes progress is full, or the bus is stopping; nothing was queued.
        """
        encoded = encode(message)
        try:
            with self.lock:
                if self._drain.refusing:
                    raise BusyError("the bus is stopping")
                now = time.monotonic()
                for lane in self._scheduler.publish(lanes, message, encoded, now):
                    self._settlement.shed(lane, message, now)
                if self._scheduler.has_thread_work:
                    self._threads.wake(len(lanes))
        finally:
            self._loop.nudge()  # also after a refusal: delivering makes room

    def submit(self, subscription: SubscriptionReference, message: Message, key: str | None) -> Future[Outcome]:
        """Queue an event for one subscription; the future receives its outcome.

        Raises:
            BusyError: the lane is full or stalled, or the bus is stopping.
            UnknownSubscriptionError: there is no such lane.
        """
        future: Future[Outcome] = Future()
        encoded = encode(message)
        with self.lock:
            if self._drain.refusing:
                raise BusyError("the bus is stopping")
            lane = self._lanes.get(subscription)
            if lane is None:
                raise UnknownSubscriptionError(f"there is no subscription {subscription} in this process")
            self._scheduler.submit(lane, message, encoded, time.monotonic(), key, future)
            if self._scheduler.has_thread_work:
                self._threads.wake(1)
        self._loop.nudge()
        return future

    def drain(self, timeout: float) -> int:
        """Refuse new events, and wait at most `timeout` seconds until all are settled. Returns the number of events
        given up."""
        drain, scheduler = self._drain, self._scheduler
        executors: tuple[Executor, ...] = (self._threads, self._loop)
        completions: list[Completion] = []
        now = time.monotonic()
        with self.lock:
            drain.refusing = True
            drain.deadline = now + timeout
            self._settlement.abandon(scheduler.withdraw(drain.deadline, now), "shutdown", completions)
            if not scheduler.events:
                drain.done.set()
            self._wake(1)  # events behind the keys of those withdrawn may be ready now
        run_all(completions)
        while (left := drain.deadline - time.monotonic()) > 0 and not drain.done.wait(min(left, _TEND_EVERY)):
            self.tend()
        completions = []
        now = time.monotonic()
        with self.lock:
            waiting = [event for lane in self._lanes for event in scheduler.close(lane, now)]
            drain.over = True
            in_flight = [event for executor in executors for event in executor.in_flight()]
            self._settlement.abandon([*waiting, *in_flight], "shutdown", completions)
        run_all(completions)
        for executor in executors:
            executor.close()
        return drain.given_up

    # The methods below are called by the executors and the timer (`executor.Engine`).

    @property
    def has_loop_work(self) -> bool:
        return self._scheduler.has_loop_work

    @property
    def has_thread_work(self) -> bool:
        return self._scheduler.has_thread_work

    def take_for_thread(self) -> QueuedEvent | None:
        event = self._scheduler.take_for_thread(time.monotonic())
        if self._scheduler.has_loop_work:  # the event loop may continue on the thread's connection
            self._loop.wake(1)
        return event

    def take_for_loop(self, now: float, most: int) -> list[QueuedEvent]:
        events = self._scheduler.take_for_loop(now, most)
        if self._scheduler.has_thread_work:
            self._threads.wake(1)
        return events

    def become_reply(self, event: QueuedEvent, reply: Outgoing) -> None:
        self._scheduler.become_reply(event, reply.message, reply.encoded)

    def put_back(self, event: QueuedEvent, now: float, completions: list[Completion]) -> None:
        if event.lane.closed:
            self.settle(event, AttemptResult(), now, completions, has_idle_connection=False)
            return
        self._scheduler.put_back(event, now)
        self._threads.wake(1)

    def open_loop(self, is_open: bool) -> None:
        self._scheduler.open_loop(is_open)
        if self._scheduler.has_thread_work:
            self._threads.wake(1)

    def release_due(self) -> tuple[float | None, bool]:
        now = time.monotonic()
        released = self._scheduler.release_due(now)
        if released:
            self._wake(released)
        due = self._scheduler.next_due
        return (None if due is None else max(due - now, 0.0)), self._scheduler.has_thread_work

    def tend(self) -> None:
        self._threads.tend()

    def flush(self) -> None:
        self._reporter.flush()

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
        scheduler, drain = self._scheduler, self._drain
        try:
            if event.lane.health.has_idle_connection is not has_idle_connection:
                scheduler.set_idle_connection(event.lane, has_idle_connection)
            if result is DELIVERED and not drain.over:
                self._settlement.delivered(event, now, completions)
            else:
                self._settlement.failed(event, result, now, cpu_cost, completions)
                if result.wait is not None:
                    self._threads.retry_at(now + result.wait)
                if result.dead_letter is not None:
                    self._wake(1)
            if event.source.closed:
                self._reporter.add_closed(event.source)
        except Exception:  # an internal error must not end the executor
            log.exception("the result of an attempt could not be settled")
        if drain.refusing and not scheduler.events:
            drain.done.set()

    def _wake(self, events: int) -> None:
        """Wake executors for up to this many attempts. Lock held."""
        if self._scheduler.has_thread_work:
            self._threads.wake(events)
        if self._scheduler.has_loop_work:
            self._loop.wake(events)
