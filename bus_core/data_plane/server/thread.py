"""Server: serving on the calling thread, with no signal handlers and no processes."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Sequence

from bus_core.data_plane.server.service import Limits, Service
from bus_core.data_plane.server.serving import Server, close_event_loop
from bus_core.data_plane.server.sockets import raise_file_limit

_LIMITS = Limits()


def serve(service: Service, sockets: Sequence[socket.socket], stop: threading.Event, limits: Limits = _LIMITS) -> None:
    """Serve in this process, on the calling thread, with no signal handlers, until `stop` is set and the service has
    stopped. The sockets stay the caller's to close."""
    raise_file_limit(limits)
    loop = asyncio.new_event_loop()
    try:
        loop.run_until_complete(_serve(service, sockets, stop, limits))
    finally:
        close_event_loop(loop)


async def _serve(service: Service, sockets: Sequence[socket.socket], stop: threading.Event, limits: Limits) -> None:
    loop = asyncio.get_running_loop()
    server = Server(service, limits, loop)
    service.start(loop)
    await server.serve(sockets, _StopEvent(stop))


class _StopEvent:
    """Looks at an event that another thread sets."""

    interval = 0.05

    def __init__(self, stop: threading.Event) -> None:
        self._stop = stop

    def beat(self) -> bool:
        return not self._stop.is_set()
