"""Server: gunicorn's master (its arbiter), which forks the workers, replaces those that die, and stops them."""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Sequence

from gunicorn.app.base import BaseApplication
from gunicorn.arbiter import Arbiter
from gunicorn.config import Config
from gunicorn.errors import HaltServer
from gunicorn.glogging import Logger

from bus_core.data_plane.server.service import Limits, Service
from bus_core.data_plane.server.sockets import raise_file_limit
from bus_core.data_plane.server.worker import STOPS, WorkerProcess

USER_MISTAKE = 2
FAILURE = 1


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
        self._factory = factory
        self.limits = limits
        self._sockets = sockets
        self._workers = workers
        self._on_worker_exit = on_worker_exit
        super().__init__()

    def load_config(self) -> None:
        self.cfg = Config()
        self.cfg.set("logger_class", _Log)
        self.cfg.set("timeout", self.limits.worker_timeout)
        self.cfg.set("graceful_timeout", int(self.limits.graceful_timeout) + 1)
        self.cfg.set("control_socket_disable", True)
        self.cfg.set("workers", self._workers)
        self.cfg.set("worker_class", WorkerProcess)
        # The arbiter closes the descriptor it is given, so it gets one of its own.
        self.cfg.set("bind", [f"fd://{os.dup(sock.fileno())}" for sock in self._sockets])
        self.cfg.set("child_exit", self._child_exit)

    def make_service(self) -> Service:
        """Called in each worker."""
        return self._factory()

    def _child_exit(self, server: Arbiter, worker: WorkerProcess) -> None:
        self._on_worker_exit(worker.pid)

    def load(self) -> None:
        """Nothing: the worker makes its service itself."""


class _Arbiter(Arbiter):  # type: ignore[misc]
    """Remembers whether a worker had to be killed, and halts but once when several cannot start."""

    killed = False
    _halting = False

    def spawn_worker(self) -> int:
        # Until a worker has handlers of its own it has the arbiter's, which would take a stop and forget it: the worker
        # would go on until it is killed. So a stop waits for it.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
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


class _Log(Logger):  # type: ignore[misc]
    """gunicorn's log as one more logger of the standard library. Its look is decided where logging is set up."""

    def setup(self, cfg: Config) -> None:
        self.cfg = cfg
        self.error_log.propagate = True
        self.error_log.setLevel(logging.WARNING)
