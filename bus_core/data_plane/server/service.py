"""What is served, and what one worker allows: the words that a server and its service share."""

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

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Called in the worker before it accepts, on the thread of its loop. Raising ends the whole server: nothing is
        gained by a retry."""

    async def stop(self, connections: Connections) -> None:
        """Called on SIGTERM or SIGINT while the sockets still listen and answer; the worker ends when it returns."""
