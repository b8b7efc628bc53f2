"""Server: the worker process below gunicorn's master."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sys
from typing import Protocol

from gunicorn.arbiter import Arbiter
from gunicorn.workers.base import Worker as GunicornWorker

from bus_core.data_plane.server.service import Limits, Service
from bus_core.data_plane.server.serving import Server, close_event_loop, new_event_loop
from bus_core.model.errors import ConfigurationError
from bus_core.telemetry import get_logger

STOPS = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)

GC_THRESHOLD = 50_000
"""How many more objects than at the last look make the collector look for cycles. Hundreds of requests that wait for a
broker's acknowledgement are tens of thousands of objects; at Python's 700 their traversal is a fifth of a worker's CPU
(an event with Kafka, 128 in flight: 175 µs with 700, 149 µs with this)."""

log = get_logger(__name__)


class Application(Protocol):
    """The part of the master's application object that a worker uses."""

    limits: Limits

    def make_service(self) -> Service: ...


class WorkerProcess(GunicornWorker):  # type: ignore[misc]  # gunicorn has no types
    """A worker: gunicorn's master forks it, watches its heartbeat file and sends it signals. It uses public names of
    gunicorn only; the serving loop is ours."""

    app: Application
    interval = 1.0
    _loop: asyncio.AbstractEventLoop
    _server: Server
    _wanted_stop = False

    def init_process(self) -> None:
        self._loop = new_event_loop()
        asyncio.set_event_loop(self._loop)
        super().init_process()

    def load_wsgi(self) -> None:
        """Make the service. gunicorn calls this before `run`, after `init_signals`."""
        try:
            service = self.app.make_service()
            self._server = Server(service, self.app.limits, self._loop)
            service.start(self._loop)
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
        for number in STOPS:
            signal.signal(number, self._stop_early)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)

    def run(self) -> None:
        self._loop.call_soon(self._handle_signals_on_loop)
        try:
            self._loop.run_until_complete(self._server.serve([one.sock for one in self.sockets], self))
        finally:
            close_event_loop(self._loop)

    def beat(self) -> bool:
        """Tell the master that the loop is alive. False when the master has gone, or asked for the end before the loop
        ran."""
        self.notify()
        return bool(self.ppid == os.getppid()) and not self._wanted_stop

    def _stop_early(self, number: int, frame: object) -> None:
        self._wanted_stop = True

    def _handle_signals_on_loop(self) -> None:
        """uvloop forgets a signal that comes before it runs, so that the loop's own handlers are set now.

        All three mean the same: Ctrl-C in a terminal reaches every worker, and the master turns its own SIGINT into
        SIGQUIT.
        """
        for number in STOPS:
            self._loop.add_signal_handler(number, self._stop)
        self._loop.add_signal_handler(signal.SIGABRT, self._abort)

    def _stop(self) -> None:
        self._server.stop()

    def _abort(self) -> None:
        sys.exit(1)
