"""Worker processes below gunicorn's arbiter."""

from __future__ import annotations

import gc
import os
import signal
import socket
import sys
from collections.abc import Callable, Sequence

from gunicorn.app.base import BaseApplication
from gunicorn.arbiter import Arbiter
from gunicorn.errors import HaltServer

from bus_core.data_plane.server.service import Limits, Service
from bus_core.data_plane.server.sockets import raise_file_limit
from bus_core.data_plane.server.worker import Worker, make_config
from bus_core.model.errors import ConfigurationError
from bus_core.telemetry import get_logger

_STOPS = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)

USER_MISTAKE = 2
FAILURE = 1

GC_THRESHOLD = 50_000
"""How many more objects than at the last look make the collector look for cycles. Hundreds of requests that wait for a
broker's acknowledgement are tens of thousands of objects; at Python's 700 their traversal is a fifth of a worker's CPU
(an event with Kafka, 128 in flight: 175 µs with 700, 149 µs with this)."""

log = get_logger(__name__)


def serve_workers(
    factory: Callable[[], Service],
    sockets: Sequence[socket.socket],
    *,
    workers: int,
    limits: Limits,
    on_worker_exit: Callable[[int], None],
) -> int:
    """Serve with worker processes until SIGTERM or SIGINT.

    Args:
        factory: makes the service, in each worker after the fork.
        sockets: shared by all workers.
        workers: how many; one that dies is replaced.
        limits: of each worker.
        on_worker_exit: called in the master with the process id of a worker that has ended.

    Returns:
        0 after a stop in which every worker ended in time; 2 if the factory met a user's mistake; else 1.
    """
    raise_file_limit(limits)
    arbiter = _Arbiter(_Application(factory, sockets, workers, limits, on_worker_exit))
    master = os.getpid()
    try:
        arbiter.run()
    except SystemExit as end:
        if os.getpid() != master:
            # A forked worker that has ended: it must not go on as if it were its master, whose stack this is.
            sys.stderr.flush()
            os._exit(end.code if isinstance(end.code, int) else FAILURE)
        if end.code == Arbiter.APP_LOAD_ERROR:
            return USER_MISTAKE
        return FAILURE if end.code or arbiter.killed else 0
    return 0


class _ProcessWorker(Worker):
    """A worker in a process of its own, below gunicorn's arbiter."""

    app: _Application

    def load_wsgi(self) -> None:
        try:
            self.prepare(self.app.factory(), self.app.limits)
        except ConfigurationError as error:
            log.error(str(error))
            sys.exit(Arbiter.APP_LOAD_ERROR)
        # What has been loaded stays, and need not be looked at again.
        gc.collect()
        gc.freeze()
        gc.set_threshold(GC_THRESHOLD, 20, 50)

    def init_signals(self) -> None:
        for number in self.SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        # All the same: Ctrl-C in a terminal reaches every worker, and the arbiter turns its own SIGINT into SIGQUIT.
        for number in _STOPS:
            self.loop.add_signal_handler(number, self._asked_to_stop)
        self.loop.add_signal_handler(signal.SIGABRT, self.handle_abort_signal)
        # On the running loop: uvloop forgets a signal that arrives before it runs.
        self.loop.call_soon(signal.pthread_sigmask, signal.SIG_UNBLOCK, _STOPS)

    def _asked_to_stop(self) -> None:
        self.wanted_stop.set()

    def run(self) -> None:
        try:
            self.loop.run_until_complete(self._serve())
        finally:
            self._cleanup()


class _Application(BaseApplication):  # type: ignore[misc]
    """Hands our settings to gunicorn, which reads neither its command line nor its environment this way."""

    def __init__(
        self,
        factory: Callable[[], Service],
        sockets: Sequence[socket.socket],
        workers: int,
        limits: Limits,
        on_worker_exit: Callable[[int], None],
    ) -> None:
        self.factory = factory
        self.limits = limits
        self._sockets = sockets
        self._workers = workers
        self._on_worker_exit = on_worker_exit
        super().__init__()

    def load_config(self) -> None:
        self.cfg = make_config(self.limits)
        self.cfg.set("workers", self._workers)
        self.cfg.set("worker_class", _ProcessWorker)
        # The arbiter closes the descriptor it is given, so it gets one of its own.
        self.cfg.set("bind", [f"fd://{os.dup(sock.fileno())}" for sock in self._sockets])
        self.cfg.set("child_exit", lambda _, worker: self._on_worker_exit(worker.pid))

    def load(self) -> None:
        """Nothing: the worker makes its service itself."""


class _Arbiter(Arbiter):  # type: ignore[misc]
    """Remembers whether a worker had to be killed, and halts but once when several cannot start."""

    killed = False
    _halting = False

    def spawn_worker(self) -> int:
        # Until a worker has handlers of its own it has the arbiter's, which would take a stop and forget it: the worker
        # would go on until it is killed. So a stop waits for it.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _STOPS)
        try:
            return int(super().spawn_worker())
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def reap_workers(self) -> None:
        try:
            super().reap_workers()
        except HaltServer:
            if not self._halting:
                self._halting = True
                raise

    def kill_workers(self, sig: int) -> None:
        self.killed = self.killed or (sig == signal.SIGKILL and bool(self.WORKERS))
        super().kill_workers(sig)
