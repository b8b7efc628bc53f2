"""Server: one connection, as asyncio sees it. It reads requests, runs the application and writes the answers."""

from __future__ import annotations

import asyncio
import time
from enum import Enum, auto
from typing import cast

from bus_core.data_plane.server.exchange import Exchange
from bus_core.data_plane.server.head import RefusedError
from bus_core.data_plane.server.registry import Registry
from bus_core.data_plane.server.request import RequestReader
from bus_core.data_plane.server.response import refusal
from bus_core.data_plane.server.service import ASGIApp
from bus_core.telemetry import get_logger

READ_AHEAD = 64 * 1024
"""Bytes that are held for an application, or behind its request, before the server stops reading. One more read of the
socket, up to 256 KiB, may come on top."""

LINGER = 2.0
"""Seconds during which a closing connection reads and discards bytes. A close with unread bytes would reset the
connection, and the sender might lose the answer."""

LAST_ANSWER = 30.0
"""Seconds that a sender may take to read the last answer of its connection."""

DISCONNECT_GRACE = 1.0
"""Seconds after which an application is cancelled whose sender has gone."""

_ASGI = {"version": "3.0", "spec_version": "2.3"}
_FULL = refusal(503, "the server has no room for another connection; try again", retry_after=1)

log = get_logger(__name__)


class State(Enum):
    """The state of a connection."""

    HEAD = auto()
    """It waits for a request head."""
    BODY = auto()
    """An application runs, and its request's body is incomplete."""
    BUSY = auto()
    """An application runs with its whole request."""
    CLOSING = auto()
    """No other answer is written. Bytes that arrive are discarded."""


_HEAD, _BODY, _BUSY, _CLOSING = State


class Connection(asyncio.Protocol):
    """A connection. One request at a time is worked on; the next ones wait in `_held`."""

    def __init__(self, registry: Registry, app: ASGIApp, server: tuple[str, int]) -> None:
        self._registry = registry
        self._app = app
        self._server = server
        self._client: tuple[str, int] | None = None
        self._transport = cast("asyncio.Transport", None)  # until `connection_made`
        self._reader = RequestReader()
        self._state = _HEAD
        self._is_first = True
        self._held = bytearray()
        self._exchange: Exchange | None = None
        self._write_paused = False
        self._writable: asyncio.Future[None] | None = None

    # Called by asyncio.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        peer = transport.get_extra_info("peername")
        self._client = peer[:2] if peer else None
        if not self._registry.admit(self):
            self._transport.write(_FULL)
            self._linger()

    def connection_lost(self, exc: Exception | None) -> None:
        self._registry.forget(self)
        self._state = _CLOSING
        self._leave()
        self._wake_writers()

    def data_received(self, data: bytes) -> None:
        state = self._state
        if state is _HEAD and not self._held and not self._write_paused:
            self._read_head(data)
        elif state is _BODY:
            self._read_body(data)
        elif state is not _CLOSING:
            self._hold(data)

    def pause_writing(self) -> None:
        self._write_paused = True

    def resume_writing(self) -> None:
        self._write_paused = False
        self._wake_writers()
        if self._held:
            self._registry.loop.call_soon(self._read_held)

    # Requests.

    def _read_head(self, data: bytes) -> None:
        reader = self._reader
        try:
            rest = reader.read_head(data)
            if rest is None:
                return
            if rest and not reader.is_complete:
                rest = reader.read_body(rest)
        except RefusedError as error:
            self._refuse(error.status, str(error))
            return
        self._begin(rest)

    def _begin(self, rest: bytes) -> None:
        reader, registry = self._reader, self._registry
        if reader.is_complete:
            self._state = _BUSY
            if self._is_first:
                self._is_first = False
                registry.fresh.pop(self, None)
            else:
                registry.idle.pop(self, None)
        else:
            self._state = _BODY
            registry.idle.pop(self, None)
            registry.bodies[self] = time.monotonic()
        if rest:
            self._hold(rest)
        target = reader.target
        scope = {
            "type": "http",
            "asgi": _ASGI,
            "http_version": reader.version,
            "method": reader.method.decode("ascii"),
            "scheme": "http",
            "path": target.path,
            "raw_path": target.raw_path,
            "query_string": target.query,
            "root_path": "",
            "headers": reader.fields,
            "server": self._server,
            "client": self._client,
        }
        self._exchange = Exchange(self, reader)
        self._exchange.start(self._app, scope, registry.loop)

    def _read_body(self, data: bytes) -> None:
        reader = self._reader
        try:
            rest = reader.read_body(data)
        except RefusedError as error:
            self._refuse(error.status, str(error))
            return
        if reader.is_complete:
            self._state = _BUSY
            self._registry.bodies.pop(self, None)
            if self._is_first:
                self._is_first = False
                self._registry.fresh.pop(self, None)
            if rest:
                self._hold(rest)
        elif len(reader.body) > READ_AHEAD:
            self._transport.pause_reading()
        if self._exchange is not None:
            self._exchange.wake()

    def _hold(self, data: bytes) -> None:
        self._held += data
        if len(self._held) > READ_AHEAD:
            self._transport.pause_reading()

    def _read_held(self) -> None:
        if self._state is _HEAD and self._held and not self._write_paused:
            held = bytes(self._held)
            self._held.clear()
            self._transport.resume_reading()
            self._read_head(held)

    # Called by the exchange.

    @property
    def is_ending(self) -> bool:
        return self._registry.is_stopping or self._state is _CLOSING

    def body_taken(self) -> None:
        if self._state is _BODY:
            self._transport.resume_reading()

    def write(self, data: bytes) -> None:
        if self._state is not _CLOSING:
            self._transport.write(data)

    async def writable(self) -> None:
        while self._write_paused and self._state is not _CLOSING:
            if self._writable is None:
                self._writable = self._registry.loop.create_future()
            await asyncio.shield(self._writable)

    def ended(self, exchange: Exchange, error: BaseException | None) -> None:
        if isinstance(error, Exception):
            log.error("an application failed", exc_info=error)
        if exchange is not self._exchange:
            return  # its connection has ended before it
        self._exchange = None
        if self._state is _CLOSING:
            return
        if not exchange.is_answered:
            if exchange.has_begun:
                self.drop()  # the sender must see that the answer is cut short
            else:
                self._refuse(500, "the server could not answer; its log says why")
        elif exchange.is_last or error is not None:
            self._close()
        else:
            self._state = _HEAD
            self._registry.idle[self] = time.monotonic()
            if self._held and not self._write_paused:
                # Other connections have their turn first: a sender that pipelines must not have the loop to itself.
                self._registry.loop.call_soon(self._read_held)

    # Called by the registry, and the end of a connection.

    def evict(self) -> None:
        self._leave()
        if self._state is _BODY or self._reader.has_begun:
            self.write(_FULL)
        self._linger()

    def expire(self) -> None:
        if self._state is _BODY:
            self._refuse(408, "the body of the request took too long")
        elif self._reader.has_begun:
            self._refuse(408, "the head of the request took too long")
        elif self._transport.get_write_buffer_size():
            self.drop()  # the sender has not read its last answer in all that time
        else:
            self._close()

    def drop(self) -> None:
        self._transport.abort()

    def _refuse(self, status: int, text: str) -> None:
        """Answer with a sentence of the server's own, unless the application has begun an answer, and close."""
        exchange = self._exchange
        self._leave()
        if exchange is not None and exchange.has_begun:
            self.drop()
            return
        self.write(refusal(status, text))
        self._linger()

    def _close(self) -> None:
        if self._held or not self._reader.is_complete:
            self._linger()
            return
        self._state = _CLOSING
        self._transport.close()
        if self._transport.get_write_buffer_size():
            self._registry.linger(self, LAST_ANSWER)

    def _linger(self) -> None:
        """Close the sending side, and discard what still arrives for a short time."""
        self._state = _CLOSING
        self._held.clear()
        self._registry.linger(self, LINGER)
        self._transport.resume_reading()
        if self._transport.can_write_eof():
            self._transport.write_eof()

    def _leave(self) -> None:
        """The sender hears no more of its request."""
        if self._exchange is not None:
            self._exchange.leave(self._registry.loop, DISCONNECT_GRACE)
            self._exchange = None

    def _wake_writers(self) -> None:
        if self._writable is not None:
            self._writable.set_result(None)
            self._writable = None
