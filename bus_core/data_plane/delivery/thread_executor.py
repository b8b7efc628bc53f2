"""Delivery: the thread executor. Worker threads on demand make the attempts that may block."""

from __future__ import annotations

import threading
import time

from bus_core.data_plane.delivery.completion import Completion, run_all
from bus_core.data_plane.delivery.executor import Engine
from bus_core.data_plane.delivery.lane import QueuedEvent
from bus_core.data_plane.delivery.load import AdaptiveLimit, CpuLoad
from bus_core.data_plane.delivery.timer import TICK, ThreadStarter, Timer
from bus_core.telemetry import get_logger

STUCK_AFTER = 0.25
"""A thread whose attempt takes longer than this many seconds does not count among the prompt threads."""

PROMPT = 0.02
"""An attempt that began less than this many seconds ago may end at once; an older one waits for its subscriber."""

FEW = 2
"""So many threads at prompt attempts are enough while the interpreter is busy: more would only take turns with its
lock, and each switch costs as much as an attempt (ten subscriptions, two cores: 14k deliveries a second at 65 µs with
two, 8k at 135 µs with as many as there were idle, 8.5k at 75 µs with one)."""

BUSY = 0.4
"""The part of a core from which on the interpreter counts as busy."""

_IDLE_EXIT = 10.0

log = get_logger(__name__)


class _Worker:
    """One worker thread's state.

    Attributes:
        gate: closed; the thread that opens it has taken this worker out of the idle ones.
        event: the event in flight.
        busy: has an event, or was woken for one.
        since: when it became busy, by the monotonic clock.
        probing: its event is of an unhealthy lane.
    """

    __slots__ = ("busy", "event", "gate", "probing", "since")

    def __init__(self) -> None:
        self.gate = threading.Lock()
        self.gate.acquire()
        self.event: QueuedEvent | None = None
        self.busy = False
        self.since = 0.0
        self.probing = False


class ThreadExecutor:
    """Threads that repeat: settle the last event, take the next, make the attempt.

    Few threads work while the interpreter is busy, more while it has time and work waits; their number changes with
    each tick of the timer. A thread that is done while enough others work becomes idle; the last one to become idle is
    woken first.

    A hung subscriber keeps its thread until the deadline. Such threads are replaced up to `cap`, so that prompt
    subscribers always have `prompt` threads. A thread that probes an unhealthy lane may be blocked for that long, so
    another thread is made ready before it begins.

    If a thread cannot be started, no error is raised: the event waits, and the next call and the timer try again.

    Args:
        engine: provides the events. Its lock guards the state of the threads.
        prompt: the number of threads that prompt subscribers share.
        cap: the limit of threads.
    """

    def __init__(self, engine: Engine, *, prompt: int, cap: int) -> None:
        self._engine = engine
        self._prompt = prompt
        self._cap = cap
        self._wanted = AdaptiveLimit(FEW, prompt, BUSY, CpuLoad(TICK / 2, 10 * TICK))  # threads at prompt attempts
        self._idle: list[_Worker] = []
        self._workers: set[_Worker] = set()
        self._probing = 0
        self._closing = False
        self._starter = ThreadStarter()
        self._timer = Timer(engine, self)

    def start(self) -> None:
        """Start the timer. Engine's lock held; never raises."""
        self._timer.ensure_started()

    def wake(self, events: int) -> None:
        """Wake up to this many threads for new work. Engine's lock held; never blocks, never raises."""
        self._timer.ensure_started()
        if not self._workers:
            self._add()
            return
        now = time.monotonic()
        wake = 0
        if self._idle:
            wake = max(min(events, len(self._idle), self._wanted.value - self._at_work(now)), 0)
            for _ in range(wake):
                self._wake_one(now)
        if wake < events:
            self._timer.look_by(now + TICK)

    def retry_at(self, moment: float) -> None:
        """Wake the timer at this moment of the monotonic clock. Engine's lock held."""
        self._timer.ensure_started()
        self._timer.look_by(moment)

    def tend(self) -> None:
        """Do the timer's work on this thread if its own could not be started. Without the lock."""
        self._timer.tend()

    def in_flight(self) -> list[QueuedEvent]:
        """The events that threads have in flight. Engine's lock held."""
        return [worker.event for worker in self._workers if worker.event is not None]

    def close(self) -> None:
        """Let idle threads end at once and busy ones after their attempt. Without the lock; does not wait for them."""
        with self._engine.lock:
            self._closing = True
            for worker in self._idle:
                worker.gate.release()
            self._idle.clear()
        self._timer.close()

    def adapt(self, now: float) -> None:
        """Work waits: more threads while the interpreter has time, fewer while it has none. Engine's lock held."""
        self._wanted.adapt(now, reached=True)
        missing = self._wanted.value - self._at_work(now)
        if missing > 0 and self._idle:
            for _ in range(min(missing, len(self._idle))):
                self._wake_one(now)
            return
        prompt = sum(1 for worker in self._workers if not worker.busy or now - worker.since < STUCK_AFTER)
        if missing > 0 and prompt < self._prompt and len(self._workers) < self._cap:
            self._add()

    def _add(self) -> None:
        if self._closing:
            return
        worker = _Worker()
        self._workers.add(worker)
        # Daemons: a subscriber that hangs must not keep the process from ending after the drain.
        thread = threading.Thread(target=self._run, args=(worker,), name="delivery-worker", daemon=True)
        if not self._starter.start(thread):
            self._workers.discard(worker)

    def _wake_one(self, now: float) -> None:
        worker = self._idle.pop()
        worker.busy, worker.since = True, now
        worker.gate.release()

    def _run(self, worker: _Worker) -> None:
        while True:
            with self._engine.lock:
                event = self._take(worker)
            if event is not None:
                self._attempt(worker, event)
            elif self._closing or not self._wait(worker):
                return

    def _take(self, worker: _Worker) -> QueuedEvent | None:
        """The worker's next event; None if the worker becomes idle, or ends. Lock held."""
        event = None
        try:
            if not self._is_one_too_many(worker):
                event = self._engine.take_for_thread()
        except Exception:  # an internal error must not end the thread, whose place would stay taken
            log.exception("a worker thread could not take an event")
        if event is None:
            if self._closing:
                self._workers.discard(worker)
            else:
                worker.busy = False
                self._idle.append(worker)
            return None
        worker.event = event
        worker.busy = True
        worker.since = time.monotonic()
        if event.probe:
            worker.probing = True
            self._probing += 1
            self._replace(worker)
        return event

    def _attempt(self, worker: _Worker, event: QueuedEvent) -> None:
        """Make the attempt, and a second one for a reply, and settle it."""
        engine, attempts = self._engine, self._engine.attempts
        target = event.source.target
        assert target is not None  # a sink's lane is never the source of an event
        began = time.thread_time() if worker.probing else 0.0
        result = attempts.run(event, target)
        while result.reply is not None:
            with engine.lock:
                engine.become_reply(event, result.reply)
            result = attempts.run(event, target)
        cost = time.thread_time() - began if worker.probing else 0.0
        is_open = result.error is None and attempts.has_idle_connection(event.lane, target)
        completions: list[Completion] = []
        with engine.lock:
            worker.event = None
            if worker.probing:
                worker.probing = False
                self._probing -= 1
            engine.settle(event, result, time.monotonic(), completions, has_idle_connection=is_open, cpu_cost=cost)
        run_all(completions)

    def _at_work(self, now: float, *, without: _Worker | None = None) -> int:
        """The number of threads with an attempt that may end at once."""
        soon = now - PROMPT
        return sum(
            1
            for worker in self._workers
            if worker.busy and worker.since > soon and not worker.probing and worker is not without
        )

    def _replace(self, worker: _Worker) -> None:
        """Make another worker ready for the next work, because this one may be blocked."""
        if self._closing:
            return
        if self._idle and self._at_work(worker.since) < self._wanted.value:
            self._wake_one(worker.since)
        elif self._probing == len(self._workers) < self._cap:
            self._add()

    def _is_one_too_many(self, mine: _Worker) -> bool:
        """Whether enough others are at prompt attempts, so that this thread becomes idle."""
        if len(self._workers) - len(self._idle) <= self._wanted.value or self._closing:
            return False
        now = time.monotonic()
        if self._at_work(now, without=mine) < self._wanted.value:
            return False
        self._timer.look_by(now + TICK)  # in case they all get stuck
        return True

    def _wait(self, worker: _Worker) -> bool:
        """Wait until there is work. Returns False if this thread is no longer needed."""
        if worker.gate.acquire(timeout=_IDLE_EXIT):
            return True
        with self._engine.lock:
            if worker in self._idle:
                self._idle.remove(worker)
                self._workers.discard(worker)
                return False
        worker.gate.acquire()  # another thread opened the gate at the end of our wait
        return True
