"""Delivery: the loop executor. The event loop makes attempts itself, on connections that threads have opened."""

from __future__ import annotations

import asyncio
import contextlib
import select
import threading
from time import monotonic

from bus_core import telemetry
from bus_core.data_plane.delivery.attempt import DELIVERED, AttemptResult
from bus_core.data_plane.delivery.completion import Completion, run_all
from bus_core.data_plane.delivery.connection_slots import ConnectionSlot, ConnectionSlots
from bus_core.data_plane.delivery.executor import Engine
from bus_core.data_plane.delivery.lane import QueuedEvent
from bus_core.data_plane.delivery.load import AdaptiveLimit, CpuLoad
from bus_core.data_plane.dispatch import MessageDispatcher
from bus_core.model.errors import DispatchError

MOST = 256
"""The limit of concurrent attempts. If half as many wait for slow subscribers, threads take over all other work until
some attempts have ended."""

FEW = 64
"""So many are enough while the process is busy: with 256 under way a hundred subscriptions cost 18 % more each than
with 64, whose sockets and buffers stay in the CPU's caches. While the process has time, the limit grows to `MOST`."""

BUSY = 0.7
"""The part of a core from which on the process counts as busy."""

BATCH = 8
"""So many published or refused events at most between two turns. The deliveries of several events, one after the other,
cost 12 % less than each at its event; a loop with hundreds of requests to read must not deliver only after the last."""

_SWEEP = 0.05
_IDLE_SWEEP = 1.0

log = telemetry.get_logger(__name__)


_Ended = tuple[QueuedEvent, AttemptResult, ConnectionSlot | None]
"""An attempt that has ended. The slot is None if it ended before it had a connection."""


class _SweepTimer:
    """When the loop executor sweeps next: after `_SWEEP` seconds if `soon`, else after `_IDLE_SWEEP`."""

    def __init__(self) -> None:
        self.soon = False
        self._handle: asyncio.TimerHandle | None = None

    def arm(self, loop: asyncio.AbstractEventLoop, executor: LoopExecutor, *, soon: bool) -> None:
        self.cancel()
        self.soon = soon
        self._handle = loop.call_later(_SWEEP if soon else _IDLE_SWEEP, executor.sweep)

    def cancel(self) -> None:
        if self._handle is not None:
            self._handle.cancel()


class LoopExecutor:
    """Makes attempts without a thread: the event loop begins them, and continues when the answer arrives.

    A thread and the event loop take the interpreter's lock from each other several times for each event, which costs
    more than the attempt (one subscription: 205 µs of CPU an event with threads, 125 µs without). Steps that may block
    stay with the threads: resolving names, connecting, TLS, large events, and unhealthy subscribers. So the loop needs
    a connection that a thread has opened, and puts an event back for which there is none.

    One epoll watches all sockets, and the event loop watches that epoll. So the attempts under way can go on between
    two requests (`nudge`), and a loop with hundreds of requests to read does not forget to deliver.

    Each turn reads all answers that have arrived, takes the engine's lock once, settles them and takes the next events,
    releases it, and sends those.

    Args:
        engine: provides the events.
        dispatcher: sends, and reads answers.
    """

    def __init__(self, engine: Engine, dispatcher: MessageDispatcher) -> None:
        self._engine = engine
        self._dispatcher = dispatcher
        self._loop: asyncio.AbstractEventLoop | None = None
        self._slots: ConnectionSlots | None = None
        self._thread = 0
        self._beginning: list[QueuedEvent] = []  # taken, but not in a slot yet; guarded by the engine's lock
        self._limit = AdaptiveLimit(FEW, MOST, BUSY, CpuLoad(0.0, 2 * _SWEEP))
        self._full = False  # the threads do all other work, until attempts have ended
        self._turning = False
        self._scheduled = False
        self._nudges = 0  # since the last turn
        self._timer = _SweepTimer()

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """Deliver on this loop from now on; call it on the loop's thread. Where the system has no epoll, nothing
        changes, and threads deliver everything."""
        if not hasattr(select, "epoll"):
            return
        self._slots = ConnectionSlots()
        self._loop, self._thread = loop, threading.get_ident()
        loop.add_reader(self._slots.epoll.fileno(), self._turn)
        self._timer.arm(loop, self, soon=False)
        with self._engine.lock:
            self._engine.open_loop(True)

    def nudge(self) -> None:
        """Go on soon: read what was answered, then begin what waits. Any thread, without the lock."""
        if threading.get_ident() != self._thread:
            if self._engine.has_loop_work:
                self.wake(1)
            return
        self._nudges += 1
        if self._nudges >= BATCH:
            self._turn()
        elif not self._scheduled and self._loop is not None:
            self._scheduled = True
            try:
                self._loop.call_soon(self._turn)
            except RuntimeError:  # the loop has ended: threads deliver from now on
                self._loop = None
                with self._engine.lock:
                    self._engine.open_loop(False)

    def wake(self, events: int) -> None:
        """Let the loop continue soon. Any thread, with or without the lock."""
        if self._scheduled or self._loop is None:
            return
        self._scheduled = True
        with contextlib.suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self._turn)

    def in_flight(self) -> list[QueuedEvent]:
        """The events that were taken and not settled. Engine's lock held."""
        if self._slots is None:
            return []
        flying = {id(slot.event): slot.event for slot in self._slots if slot.event is not None}
        return list((flying | {id(event): event for event in self._beginning}).values())

    def close(self) -> None:
        """Take no more events, and close the connections. Any thread; does not wait."""
        with self._engine.lock:
            self._engine.open_loop(False)
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                self._loop.call_soon_threadsafe(self._detach)

    # All below runs on the loop's thread.

    def _detach(self) -> None:
        loop, slots = self._loop, self._slots
        if loop is None or slots is None:
            return
        loop.remove_reader(slots.epoll.fileno())
        self._loop = None
        self._timer.cancel()
        stopped = DispatchError("the bus has stopped")
        self._cycle(slots, [self._give_up(slot, stopped) for slot in slots if slot.event is not None])
        slots.close()

    def _turn(self) -> None:
        slots = self._slots
        if self._turning or self._loop is None or slots is None:
            return
        self._turning, self._scheduled, self._nudges = True, False, 0
        try:
            ended: list[_Ended] = []
            for slot in slots.ready():
                self._advance(slots, slot, ended)
            if ended or self._engine.has_loop_work or self._engine.has_thread_work:
                self._cycle(slots, ended)
        except Exception:  # an internal error must not reach a publisher
            log.exception("the event loop could not go on with its deliveries, and will try again")
        finally:
            self._turning = False

    def _cycle(self, slots: ConnectionSlots, ended: list[_Ended]) -> None:
        """Settle attempts, and begin others, until none may begin."""
        engine = self._engine
        completions: list[Completion] = []
        put_back: list[QueuedEvent] = []
        try:
            while True:
                now = monotonic()
                with engine.lock:
                    for event in put_back:
                        engine.put_back(event, now, completions)
                    beginning = self._settle(slots, ended, now, completions)
                    beginning += engine.take_for_loop(now, self._limit.value - slots.in_use)
                    self._beginning = beginning
                if not beginning:
                    break
                ended, put_back = [], []
                for event in beginning:
                    self._begin(slots, event, now, ended, put_back)
                if not (ended or put_back or engine.has_loop_work):
                    break
        finally:
            run_all(completions)
        if slots.in_use and not self._timer.soon and self._loop is not None:
            self._timer.arm(self._loop, self, soon=True)

    def _settle(
        self, slots: ConnectionSlots, ended: list[_Ended], now: float, completions: list[Completion]
    ) -> list[QueuedEvent]:
        """Settle attempts and free their slots. Returns the replies to send next. Lock held."""
        engine = self._engine
        replies: list[QueuedEvent] = []
        for event, result, slot in ended:
            if result.reply is None:
                engine.settle(event, result, now, completions, has_idle_connection=result is DELIVERED)
            else:
                engine.become_reply(event, result.reply)
                replies.append(event)
            if slot is not None:
                slot.event = None
                slots.release(slot, now)
        if self._full and slots.in_use <= MOST // 2 and self._loop is not None:
            self._full = False
            engine.open_loop(True)
        return replies

    def _begin(
        self, slots: ConnectionSlots, event: QueuedEvent, now: float, ended: list[_Ended], put_back: list[QueuedEvent]
    ) -> None:
        """Begin one attempt. Never raises."""
        target = event.source.target
        assert target is not None  # a sink's lane is never the source of an event
        slot = None
        try:
            route = self._engine.attempts.route(event, target)
            slot = slots.take(event, target, route, now)
            if slot is None:
                put_back.append(event)
                return
            if not self._dispatcher.start(slot.connection, route, event.encoded):
                slots.watch(slot, writing=True)
        except Exception as error:
            if slot is not None:
                slot.connection.close()
            ended.append((event, self._engine.attempts.failed(event, target, error), slot))

    def _advance(self, slots: ConnectionSlots, slot: ConnectionSlot, ended: list[_Ended]) -> None:
        """The socket of a slot is ready. Never raises."""
        event, connection = slot.event, slot.connection
        assert event is not None
        try:
            reply = self._dispatcher.advance(connection, slot.route)
            if reply is None:
                if slot.writing and not connection.unsent:
                    slots.watch(slot, writing=False)
                return
            result = self._engine.attempts.answered(event, slot.target, reply)
        except Exception as error:
            result = self._engine.attempts.failed(event, slot.target, error)
        ended.append((event, result, slot))

    def sweep(self) -> None:
        """End attempts that have taken too long, and close connections that were idle for too long."""
        loop, slots = self._loop, self._slots
        if loop is None or slots is None:
            return
        try:
            self._end_late(slots, monotonic())
            self._engine.tend()
        except Exception:  # without the next sweep no attempt would ever end by its deadline
            log.exception("the loop executor met an error while it looked for late attempts, and goes on")
        finally:
            self._timer.arm(loop, self, soon=slots.in_use > 0)
        self._turn()

    def _end_late(self, slots: ConnectionSlots, now: float) -> None:
        slow = 0
        ended = []
        for slot in slots:
            if slot.event is not None:
                slow += now - slot.since > _SWEEP
                if now > slot.deadline:
                    ended.append(self._give_up(slot))
        if slow > MOST // 2 and not self._full:
            self._full = True
            with self._engine.lock:
                self._engine.open_loop(False)
        if ended:
            self._cycle(slots, ended)
        slots.drop_unused(now)
        self._limit.adapt(now, reached=slots.in_use >= self._limit.value)

    def _give_up(self, slot: ConnectionSlot, error: Exception | None = None) -> _Ended:
        """End the attempt of a slot, with this error or because it is late, and close the connection. Never raises."""
        event = slot.event
        assert event is not None
        try:
            error = error or slot.connection.late(slot.route.shown, slot.target.spec.timeout or 0.0)
        except Exception as fault:  # the other late attempts must end, too
            error = fault
        slot.connection.close()
        return (event, self._engine.attempts.failed(event, slot.target, error), slot)
