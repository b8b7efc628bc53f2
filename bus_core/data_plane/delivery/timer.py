"""Delivery: the timer thread. It releases due retries, adds worker threads, and flushes counts."""

from __future__ import annotations

import threading
import time
from typing import Protocol

from bus_core.data_plane.delivery.executor import Engine
from bus_core.telemetry import get_logger

TICK = 0.02
"""Seconds between two looks while work waits for a thread."""

FLUSH = 0.5
"""Seconds between two flushes, and between two looks at most."""

_START_AGAIN = 0.5
_LOG_AGAIN = 60.0
_JOIN = 5.0

log = get_logger(__name__)


class Workers(Protocol):
    """The timer's view of the worker threads."""

    def adapt(self, now: float) -> None:
        """Wake or add threads for waiting work, if that helps. Engine's lock held."""


class ThreadStarter:
    """Starts threads of one kind, and tolerates a failure. Not thread-safe: guarded by the engine's lock."""

    def __init__(self) -> None:
        self._not_before = float("-inf")
        self._logged = float("-inf")

    def start(self, thread: threading.Thread) -> bool:
        """Start a thread. Returns whether it was started. After a failure it waits half a second: until then, False at
        once. A failure is logged, at most once a minute."""
        now = time.monotonic()
        if now < self._not_before:
            return False
        try:
            thread.start()
        except RuntimeError as error:  # "can't start new thread": a limit on processes, or no memory
            self._not_before = now + _START_AGAIN
            if now - self._logged >= _LOG_AGAIN:
                self._logged = now
                log.error("a delivery thread could not be started, events wait", which=thread.name, error=str(error))
            return False
        return True


class Timer:
    """One thread that wakes when a retry or a flush is due.

    Args:
        engine: releases due retries, and flushes counts.
        workers: the threads for ready events.
    """

    def __init__(self, engine: Engine, workers: Workers) -> None:
        self._engine = engine
        self._workers = workers
        self._starter = ThreadStarter()
        self._thread: threading.Thread | None = None
        self._nudge = threading.Event()
        self._next_look = 0.0
        self._next_flush = 0.0
        self._closing = False

    def ensure_started(self) -> None:
        """Start the thread, unless it runs. Engine's lock held; never raises."""
        if self._thread is None and not self._closing:
            thread = threading.Thread(target=self._run, name="delivery-timer", daemon=True)
            if self._starter.start(thread):
                self._thread = thread

    def look_by(self, moment: float) -> None:
        """Wake the thread at this moment of the monotonic clock, or earlier. Engine's lock held."""
        if moment < self._next_look:
            self._nudge.set()

    def tend(self) -> None:
        """Do the thread's work on this thread if it could not be started. Without the lock."""
        with self._engine.lock:
            self.ensure_started()
            if self._thread is not None or self._closing:
                return
        self._look()
        self._flush_when_due()

    def close(self) -> None:
        """End the thread, and flush the remaining counts. Without the lock."""
        self._closing = True
        self._nudge.set()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(_JOIN)
        self._engine.flush()

    def _run(self) -> None:
        while not self._closing:
            wait = FLUSH
            try:
                wait = self._look()
                self._flush_when_due()
            except Exception:  # without this thread no retry would ever become due
                log.exception("the delivery timer met an error, and goes on")
            self._nudge.wait(max(wait, 0.001))

    def _look(self) -> float:
        """Release due retries. Returns the seconds until the next look."""
        with self._engine.lock:
            self._nudge.clear()
            due, backlog = self._engine.release_due()
            now = time.monotonic()
            if backlog:
                self._workers.adapt(now)
            wait = min(FLUSH if due is None else due, TICK if backlog else FLUSH)
            self._next_look = now + wait
        return wait

    def _flush_when_due(self) -> None:
        now = time.monotonic()
        if now >= self._next_flush:
            self._next_flush = now + FLUSH
            self._engine.flush()
