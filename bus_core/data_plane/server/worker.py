"""gunicorn's asgi worker, with what it leaves open closed (measured: docs/decisions/0002-gunicorn.md)."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
from typing import Any

from gunicorn.asgi.protocol import ASGIProtocol, _normalize_sockaddr
from gunicorn.config import Config
from gunicorn.glogging import Logger
from gunicorn.workers.gasgi import ASGIWorker

from bus_core.data_plane.server.request_target import to_origin_form
from bus_core.data_plane.server.service import Limits, Scope, Service
from bus_core.data_plane.server.whole import Exchange, Fields, read, scope_of
from bus_core.telemetry import get_logger

_HEARTBEAT = 1.0
_STOP_POLL = 0.05
_LAST_ANSWERS = 1.0

log = get_logger(__name__)


class BusProtocol(ASGIProtocol):  # type: ignore[misc]
    """A connection that counts, that does not wait for a request head for ever, and that has a quick way for requests
    that arrive whole (measured: docs/decisions/0020-requests-that-arrive-whole.md)."""

    worker: Worker
    _waits_since: float | None = None
    """When it began to wait for another request."""

    _exchange: Exchange | None = None
    """What goes the quick way now; whatever arrives meanwhile waits in `_held`."""

    def connection_made(self, transport: asyncio.Transport) -> None:
        self._counted = self.worker.admit(self)
        if not self._counted:
            transport.abort()
            return
        self._held = bytearray()
        self._server = _normalize_sockaddr(transport.get_extra_info("sockname"))
        self._client = _normalize_sockaddr(transport.get_extra_info("peername"))
        super().connection_made(transport)
        self._head_timer = self.worker.loop.call_later(self.worker.limits.header_timeout, self.drop)

    # The quick way: `bus_core.data_plane.server.whole`.

    def data_received(self, data: bytes) -> None:
        if self._exchange is not None or self._held:
            self._hold(data)
            return
        if self._is_between_requests():
            if self._flow_control.write_paused:  # a sender that does not read its answers gets no more of them
                self._hold(data)
                return
            found = read(data)
            if found is not None:
                self._begin(*found)
                return
        super().data_received(data)

    def _hold(self, data: bytes) -> None:
        self._held += data
        if len(self._held) > self._max_buffer_size:
            self._pause_reading()

    def _is_between_requests(self) -> bool:
        parser = self._callback_parser
        return (
            not (self._request_ready.is_set() or parser._buffer or self.is_ending) and parser._state == "request_line"
        )

    def _begin(self, path: str, fields: Fields, body: bytes, is_last: bool) -> None:
        self._head_timer.cancel()
        self._waits_since = None
        self._callback_parser._empty_line_skipped = False  # what its own `reset` does after a request
        self._exchange = Exchange(self, body, is_last)
        self._exchange.start(self.app, scope_of(path, fields, self._server, self._client), self.worker.loop)

    @property
    def is_ending(self) -> bool:
        return self._closed or not self.worker.alive

    def write(self, answer: bytes) -> None:
        self._safe_write(answer)

    def ended(self, exchange: Exchange, error: BaseException | None) -> None:
        self._exchange = None
        if isinstance(error, Exception):
            self.log.error("Error in ASGI application", exc_info=error)
        if self._closed:
            return
        if not exchange.is_answered:
            self._send_error_response(500, "Internal Server Error")
        if exchange.is_last or error is not None or not exchange.is_answered:
            # The task that would wait for another request first: one that has not ended when the connection is lost is
            # kept for a second, and with a connection for each event those are thousands (ran, 251 MB in place of 81).
            self._request_ready.set()
            self._close_transport()
            return
        self._waits_since = self.worker.loop.time()
        if self._held and not self._flow_control.write_paused:
            # Others have their turn first: a sender that pipelines must not have the loop to itself.
            self.worker.loop.call_soon(self._replay)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._held and self._exchange is None:
            self.worker.loop.call_soon(self._replay)

    def _replay(self) -> None:
        if self._closed or self._exchange is not None or not self._held:
            return
        held, self._held = bytes(self._held), bytearray()
        self._resume_reading()
        self.data_received(held)

    # gunicorn's own.

    def _build_http_scope(self, request: Any, sockname: Any, peername: Any) -> Scope:
        scope: Scope = super()._build_http_scope(request, sockname, peername)
        if not scope["path"].startswith("/"):
            to_origin_form(scope)
        return scope

    def _is_websocket_upgrade(self, request: Any) -> bool:
        """Never: nothing here speaks it, so it is the GET that it would be without (RFC 9110, section 7.8)."""
        return False

    def _on_headers_complete(self) -> bool:
        self._head_timer.cancel()
        return bool(super()._on_headers_complete())

    def _arm_keepalive_timer(self) -> None:
        """No timer, which costs 4 % of an event: the heartbeat closes who has waited for too long (`end_waiting`)."""
        self._waits_since = self.worker.loop.time()

    def _cancel_keepalive_timer(self) -> None:
        self._waits_since = None

    def end_waiting(self, since: float) -> None:
        """Close the connection if it has waited for another request since before that time."""
        if self._waits_since is not None and self._waits_since < since:
            self._keepalive_timeout()

    async def _serve_http_request(self, request: Any, sockname: Any, peername: Any) -> bool:
        """Without a task of its own for each request, which is for applications that go on after their answer: ours do
        not, and it costs two rounds of the event loop. Where the next request is here already, though, others have
        their turn before it: a sender that pipelines must not have the loop to itself."""
        keepalive = bool(await self._handle_http_request(request, sockname, peername))
        if self._callback_parser._buffer:
            await asyncio.sleep(0)
        return keepalive

    def connection_lost(self, exc: Exception | None) -> None:
        if self._counted:
            self.worker.forget(self)
            self._head_timer.cancel()
            if self._exchange is not None:
                self._exchange.leave(self.worker.loop, self.cfg.asgi_disconnect_grace_period)
            super().connection_lost(exc)

    @property
    def is_idle(self) -> bool:
        """No complete request is being worked on."""
        if self._exchange is not None:
            return False
        receiver = self._body_receiver
        return not self._request_ready.is_set() or (receiver is not None and not receiver._complete)

    def drop(self) -> None:
        """Close the connection now; an application that waits for the rest of its body sees it end."""
        self.transport.abort()
        self._closed = True
        self._request_ready.set()


class Worker(ASGIWorker):  # type: ignore[misc]  # gunicorn has no types
    """What both kinds of worker share: the serving loop, and the book of connections."""

    limits: Limits
    service: Service
    heartbeat = _HEARTBEAT

    def prepare(self, service: Service, limits: Limits) -> None:
        self.limits = limits
        self.service = service
        self.asgi = service.asgi
        self.connections: set[BusProtocol] = set()
        self.wanted_stop = asyncio.Event()
        self._complained = 0.0
        service.start(self.loop)

    def admit(self, connection: BusProtocol) -> bool:
        if len(self.connections) >= self.limits.max_connections:
            if time.monotonic() - self._complained > 1:
                self._complained = time.monotonic()
                log.warning("too many connections, closing new ones", limit=self.limits.max_connections)
            return False
        self.connections.add(connection)
        return True

    def forget(self, connection: BusProtocol) -> None:
        self.connections.discard(connection)

    def close_idle(self) -> None:
        for connection in list(self.connections):
            if connection.is_idle:
                connection.drop()

    async def _serve(self) -> None:
        for listener in self.sockets:
            plain = getattr(listener, "sock", listener)
            self.servers.append(await self.loop.create_server(lambda: BusProtocol(self), sock=plain.dup()))
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
        """Tell the master that this loop is alive, also while the service stops; look after what waits."""
        while True:
            self.notify()
            if self.should_stop():
                self.wanted_stop.set()
            for connection in list(self.connections):
                connection.end_waiting(self.loop.time() - self.limits.keepalive)
            await asyncio.sleep(self.heartbeat)

    def should_stop(self) -> bool:
        """Whether something other than a signal asks for the end."""
        return bool(self.ppid != os.getppid())  # the master is gone


class ThreadWorker(Worker):
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


class Log(Logger):  # type: ignore[misc]
    """gunicorn's log as one more stdlib logger: how it looks is decided where logging is set up."""

    def setup(self, cfg: Config) -> None:
        self.cfg = cfg
        self._access_log_enabled = False
        self.error_log.propagate = True
        self.error_log.setLevel(logging.WARNING)


def make_config(limits: Limits) -> Config:
    config = Config()
    config.set("logger_class", Log)
    config.set("http_parser", "python")  # whatever else is installed
    config.set("keepalive", limits.keepalive)
    config.set("timeout", limits.worker_timeout)
    config.set("graceful_timeout", int(limits.graceful_timeout) + 1)
    config.set("asgi_lifespan", "off")
    config.set("asgi_disconnect_grace_period", 1)
    config.set("control_socket_disable", True)
    return config
