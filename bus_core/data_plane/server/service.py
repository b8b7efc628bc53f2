"""Server: the interfaces between it and the service it runs, and the limits of one worker."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any, Protocol

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Mapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of one worker. Times are seconds.

    Attributes:
        max_connections: open connections. When all places are taken, a new connection replaces one whose first
            request is incomplete, or an idle one; if there is neither, it is answered 503.
        header_timeout: from the connection to the end of its first request head.
        body_timeout: from the end of a request head to the end of its body.
        keepalive: how long the server waits for the next request head on a connection.
        worker_timeout: the master kills a worker whose event loop is blocked for longer, without a drain.
        graceful_timeout: the master kills a worker that has not stopped by then.
    """

    max_connections: int = 1000
    header_timeout: float = 10.0
    body_timeout: float = 60.0
    keepalive: float = 75.0
    worker_timeout: int = 30
    graceful_timeout: float = 40.0


class Connections(Protocol):
    """The calls that a stopping service may make on its server's connections. Call them on the event loop."""

    def close_idle(self) -> None:
        """Close the connections that wait for a request and those whose request is incomplete."""


class Service(Protocol):
    """The service that a worker runs."""

    def app_at(self, address: tuple[str, int]) -> ASGIApp:
        """The application for the connections of one listening socket.

        Args:
            address: the listening socket's own `getsockname()[:2]`.
        """

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Called in the worker before it accepts connections, on the thread of its loop. An exception ends the whole
        server, because a retry would fail as well."""

    async def stop(self, connections: Connections) -> None:
        """Called on SIGTERM or SIGINT while the sockets still listen and answer. The worker ends when it returns."""
