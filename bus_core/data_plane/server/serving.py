"""Server: the serving loop that a worker process and a thread share."""

from __future__ import annotations

import asyncio
import functools
import socket
from collections.abc import Sequence
from typing import Protocol

from bus_core.data_plane.server.connection import Connection
from bus_core.data_plane.server.registry import Registry
from bus_core.data_plane.server.service import Limits, Service
from bus_core.data_plane.server.sockets import BACKLOG
from bus_core.telemetry import get_logger

_ACCEPT_AT_ONCE = 100
_LAST_ANSWERS = 1.0

log = get_logger(__name__)


class Heart(Protocol):
    """The owner of a serving loop.

    Attributes:
        interval: seconds between two beats.
    """

    interval: float

    def beat(self) -> bool:
        """Called on the loop while it lives, also while the service stops. False asks for the end."""


class Server:
    """Serves one service on one event loop, until it is stopped."""

    def __init__(self, service: Service, limits: Limits, loop: asyncio.AbstractEventLoop) -> None:
        self._service = service
        self._registry = Registry(limits, loop)
        self._loop = loop
        self._wanted_stop = asyncio.Event()

    def stop(self) -> None:
        """Begin to stop. Call it on the event loop."""
        self._wanted_stop.set()

    async def serve(self, sockets: Sequence[socket.socket], heart: Heart) -> None:
        """Serve until `stop` is called or the heart asks for the end, and the service has stopped. The sockets stay the
        caller's to close."""
        listeners = [await self._listen(sock) for sock in sockets]
        beat = asyncio.create_task(self._beat(heart), name="heartbeat")
        await self._wanted_stop.wait()
        self._registry.is_stopping = True
        try:
            await self._service.stop(self._registry)
        except Exception:
            log.exception("the service did not stop cleanly")
        for listener in listeners:
            listener.close()
        self._registry.close_idle()
        deadline = self._loop.time() + _LAST_ANSWERS
        while len(self._registry) and self._loop.time() < deadline:
            await asyncio.sleep(0.01)
        self._registry.drop_all()
        beat.cancel()

    async def _listen(self, sock: socket.socket) -> asyncio.Server:
        own = sock.dup()
        address = own.getsockname()[:2]
        make = functools.partial(Connection, self._registry, self._service.app_at(address), address)
        # asyncio accepts as many connections in one round of the loop as the backlog that it is given.
        listener = await self._loop.create_server(make, sock=own, backlog=_ACCEPT_AT_ONCE)
        own.listen(BACKLOG)
        return listener

    async def _beat(self, heart: Heart) -> None:
        while True:
            if not heart.beat():
                self.stop()
            self._registry.sweep()
            await asyncio.sleep(heart.interval)


def new_event_loop() -> asyncio.AbstractEventLoop:
    """A uvloop where it is installed (`bus-core[uvloop]`), else asyncio's own loop."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    return loop


def close_event_loop(loop: asyncio.AbstractEventLoop) -> None:
    """Cancel the tasks that are left, wait for them, and close the loop."""
    loop.run_until_complete(_cancel_tasks())
    loop.close()


async def _cancel_tasks() -> None:
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
