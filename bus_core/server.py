"""The HTTP server: gunicorn's asgi worker, in processes of its own or on a thread. The only importer of gunicorn.

It knows no bus. What gunicorn 27 leaves open and is closed here (each measured): it never closes a connection that
sends nothing or half a request head, ignores `worker_connections`, treats SIGINT as "now" although Ctrl-C sends it to
every worker at once, and stops up to a second late.
"""

from __future__ import annotations

import asyncio
import logging
import os
import resource
import signal
import socket
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from gunicorn.app.base import BaseApplication
from gunicorn.arbiter import Arbiter
from gunicorn.asgi.protocol import ASGIProtocol
from gunicorn.config import Config
from gunicorn.errors import HaltServer
from gunicorn.glogging import Logger
from gunicorn.workers.gasgi import ASGIWorker

from bus_core.errors import ConfigurationError
from bus_core.telemetry import get_logger

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]

USER_MISTAKE = 2
FAILURE = 1

_HEARTBEAT = 1.0
_STOP_POLL = 0.05
_LAST_ANSWERS = 1.0
_SPARE_FILES = 256

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Limits:
    """What one worker allows. Times are seconds.

    Attributes:
        max_connections: connections beyond these are closed at once.
        header_timeout: from the connection to the end of its first request head.
        keepalive: how long an idle connection, or the next request head, is waited for.
        worker_timeout: an event loop that is blocked for longer is killed, without a drain.
        graceful_timeout: a worker that has not stopped by then is killed.
    """

    max_connections: int = 1000
    header_timeout: float = 10.0
    keepalive: int = 75
    worker_timeout: int = 30
    graceful_timeout: float = 40.0


class Connections(Protocol):
    """What a service that stops may do with its server's connections. Call it on the event loop."""

    def close_idle(self) -> None:
        """Close those that wait for a request, and those whose request is incomplete."""


class Service(Protocol):
    """What a worker serves."""

    @property
    def asgi(self) -> ASGIApp:
        """The application."""

    def start(self) -> None:
        """Called in the worker before it accepts. Raising ends the whole server: nothing is gained by a retry."""

    async def stop(self, connections: Connections) -> None:
        """Called on SIGTERM or SIGINT while the sockets still listen and answer; the worker ends when it returns."""


def bind(address: str) -> socket.socket:
    """A listening socket for `HOST:PORT`; port 0 takes a free one, IPv6 goes in brackets.

    Raises:
        ConfigurationError: the address cannot be read, is in use, or is not this machine's.
    """
    host, colon, port = address.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or int(port) > 65535 or not host:
        raise ConfigurationError(f"{address!r} is no address: write HOST:PORT, for example 127.0.0.1:8080")
    bare = host.removeprefix("[").removesuffix("]")
    try:
        family, kind, protocol, _, sockaddr = socket.getaddrinfo(bare, int(port), type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise ConfigurationError(f"cannot listen on {address}: {error.strerror or error}") from None
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(sockaddr)
        listener.listen(2048)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        hint = "stop the other program or choose another port" if "in use" in str(error) else "choose another address"
        raise ConfigurationError(f"cannot listen on {address}: {error.strerror or error}; {hint}") from None
    return listener


def by_port(apps: Mapping[int, ASGIApp]) -> ASGIApp:
    """One application that tells the ports apart on which it is reached. The socket says the port, not the request:
    a forged Host does not lead from one to the other (measured)."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await apps[scope["server"][1]](scope, receive, send)

    return app


def serve(service: Service, sockets: Sequence[socket.socket], stop: threading.Event, limits: Limits = Limits()) -> None:
    """Serve in this process, on the calling thread, with no signal handlers, until `stop` is set and the service has
    stopped. The sockets stay the caller's to close."""
    _raise_file_limit(limits)
    config = _config(limits)
    worker = _ThreadWorker(0, os.getppid(), list(sockets), None, 0, config, _Log(config))
    worker.serve_until(service, limits, stop)


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
    _raise_file_limit(limits)
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


class _Protocol(ASGIProtocol):  # type: ignore[misc]
    """A connection that counts, and that does not wait for a request head for ever."""

    worker: _Worker

    def connection_made(self, transport: asyncio.Transport) -> None:
        self._counted = self.worker.admit(self)
        if not self._counted:
            transport.abort()
            return
        super().connection_made(transport)
        self._head_timer = self.worker.loop.call_later(self.worker.limits.header_timeout, self.drop)

    def _on_headers_complete(self) -> bool:
        self._head_timer.cancel()
        return bool(super()._on_headers_complete())

    def connection_lost(self, exc: Exception | None) -> None:
        if self._counted:
            self.worker.forget(self)
            self._head_timer.cancel()
            super().connection_lost(exc)

    @property
    def is_idle(self) -> bool:
        """No complete request is being worked on."""
        receiver = self._body_receiver
        return not self._request_ready.is_set() or (receiver is not None and not receiver._complete)

    def drop(self) -> None:
        """Close the connection now; an application that waits for the rest of its body sees it end."""
        self.transport.abort()
        self._closed = True
        self._request_ready.set()


class _Worker(ASGIWorker):  # type: ignore[misc]  # gunicorn has no types
    """What both kinds of worker share: the serving loop, and the book of connections."""

    limits: Limits
    service: Service
    heartbeat = _HEARTBEAT

    def prepare(self, service: Service, limits: Limits) -> None:
        self.limits = limits
        self.service = service
        self.asgi = service.asgi
        self.connections: set[_Protocol] = set()
        self.wanted_stop = asyncio.Event()
        self._complained = 0.0
        service.start()

    def admit(self, connection: _Protocol) -> bool:
        if len(self.connections) >= self.limits.max_connections:
            if time.monotonic() - self._complained > 1:
                self._complained = time.monotonic()
                log.warning("too many connections, closing new ones", limit=self.limits.max_connections)
            return False
        self.connections.add(connection)
        return True

    def forget(self, connection: _Protocol) -> None:
        self.connections.discard(connection)

    def close_idle(self) -> None:
        for connection in list(self.connections):
            if connection.is_idle:
                connection.drop()

    async def _serve(self) -> None:
        for listener in self.sockets:
            plain = getattr(listener, "sock", listener)
            self.servers.append(await self.loop.create_server(lambda: _Protocol(self), sock=plain.dup()))
        beat = asyncio.create_task(self._beat())
        await self.wanted_stop.wait()
        # From here on every answer closes its connection, so that clients look for another worker.
        self.alive = False
        try:
            await self.service.stop(self)
        except Exception:
            log.exception("the service did not stop cleanly")
        for server in self.servers:
            server.close()
        self.close_idle()
        deadline = self.loop.time() + _LAST_ANSWERS
        while self.connections and self.loop.time() < deadline:
            await asyncio.sleep(0.01)
        for connection in list(self.connections):
            connection.drop()
        beat.cancel()

    async def _beat(self) -> None:
        """Tell the master that this loop is alive, also while the service stops."""
        while True:
            self.notify()
            if self.should_stop():
                self.wanted_stop.set()
            await asyncio.sleep(self.heartbeat)

    def should_stop(self) -> bool:
        """Whether something other than a signal asks for the end."""
        return bool(self.ppid != os.getppid())  # the master is gone


class _ProcessWorker(_Worker):
    """A worker in a process of its own, below gunicorn's arbiter."""

    app: _Application

    def load_wsgi(self) -> None:
        try:
            self.prepare(self.app.factory(), self.app.limits)
        except ConfigurationError as error:
            log.error(str(error))
            sys.exit(Arbiter.APP_LOAD_ERROR)

    def init_signals(self) -> None:
        for number in self.SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        # All the same: Ctrl-C in a terminal reaches every worker, and the arbiter turns its own SIGINT into SIGQUIT.
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
            self.loop.add_signal_handler(number, self._asked_to_stop)
        self.loop.add_signal_handler(signal.SIGABRT, self.handle_abort_signal)

    def _asked_to_stop(self) -> None:
        self.wanted_stop.set()

    def run(self) -> None:
        try:
            self.loop.run_until_complete(self._serve())
        finally:
            self._cleanup()


class _ThreadWorker(_Worker):
    """A worker on a thread: no signals, no master, no heartbeat file to speak of."""

    heartbeat = _STOP_POLL
    _stop: threading.Event

    def serve_until(self, service: Service, limits: Limits, stop: threading.Event) -> None:
        self._stop = stop
        self.loop = asyncio.new_event_loop()
        try:
            self.loop.run_until_complete(self._prepare_and_serve(service, limits))
        finally:
            self.sockets.clear()  # they are the caller's
            self._cleanup()
            self.tmp.close()

    async def _prepare_and_serve(self, service: Service, limits: Limits) -> None:
        self.prepare(service, limits)
        await self._serve()

    def notify(self) -> None:
        """Nobody waits for it."""

    def should_stop(self) -> bool:
        return self._stop.is_set()


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
        self.cfg = _config(self.limits)
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
    """gunicorn's log as one more stdlib logger: how it looks is decided where logging is set up."""

    def setup(self, cfg: Config) -> None:
        self.cfg = cfg
        self._access_log_enabled = False
        self.error_log.propagate = True
        self.error_log.setLevel(logging.WARNING)


def _config(limits: Limits) -> Config:
    config = Config()
    config.set("logger_class", _Log)
    config.set("keepalive", limits.keepalive)
    config.set("timeout", limits.worker_timeout)
    config.set("graceful_timeout", int(limits.graceful_timeout) + 1)
    config.set("asgi_lifespan", "off")
    config.set("asgi_disconnect_grace_period", 1)
    config.set("control_socket_disable", True)
    return config


def _raise_file_limit(limits: Limits) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = limits.max_connections + _SPARE_FILES
    if soft < wanted:
        soft = min(wanted, hard) if hard != resource.RLIM_INFINITY else wanted
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if soft < wanted:
        log.warning("the limit of open files is too low for the connections allowed", limit=soft, wanted=wanted)
