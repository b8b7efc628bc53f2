"""urllib3's connection pools, set up for our connections and with a lean store for the idle ones."""

from __future__ import annotations

import queue
import ssl
import weakref
from collections import deque
from functools import cached_property
from time import monotonic
from typing import Any, cast

import urllib3

from bus_core.data_plane.dispatch.connection import IDLE_LIMIT, PlainConnection, SecureConnection
from bus_core.data_plane.dispatch.encoding import Encoded
from bus_core.data_plane.dispatch.reply import Reply
from bus_core.model.destination import Destination
from bus_core.model.errors import DispatchError

_MOST_POOLS = 1024
"""Hosts whose pools are kept for the next `Pools.of`; a pool that somebody still holds works on without being kept."""


class _IdleStack(queue.LifoQueue[Any]):
    """Idle connections, the last used on top: what urllib3 asks of a queue, without its locks (0.1 µs per exchange
    instead of 1.3; a deque's `append` and `pop` are atomic). Never blocks and is never full: the oldest make room."""

    def __init__(self, maxsize: int = 0) -> None:
        super().__init__(maxsize)
        self.connections: deque[PlainConnection] = deque()

    def get(self, block: bool = True, timeout: float | None = None) -> PlainConnection:
        try:
            return self.connections.pop()
        except IndexError:
            raise queue.Empty from None

    def put(self, item: PlainConnection | None, block: bool = True, timeout: float | None = None) -> None:
        if item is not None:  # urllib3 fills its queues with None, for pools that make callers wait
            self.connections.append(item)
            self.trim()

    def qsize(self) -> int:
        return len(self.connections)

    def trim(self) -> None:
        """Close the connection unused for longest, if there are too many or it has been idle for too long."""
        try:
            oldest = self.connections.popleft()
        except IndexError:
            return
        if len(self.connections) >= self.maxsize or monotonic() - oldest.idle_since > IDLE_LIMIT:
            oldest.close()
        else:
            self.connections.appendleft(oldest)


class Pool(urllib3.HTTPConnectionPool):
    """The connections to one scheme, host and port. Safe to share between threads: each exchange has a connection of
    its own, opened when none is idle."""

    ConnectionCls = PlainConnection
    QueueCls = _IdleStack
    pool: _IdleStack | None

    def exchange(self, destination: str, prefix: bytes, event: Encoded, timeout: float, cap: int) -> Reply:
        """See `PlainConnection.exchange`. The one place where a connection is taken from urllib3 and given back;
        urllib3's own way, `urlopen`, costs ten times as much.

        Raises:
            DispatchError: and its kinds; also when the pool has been closed.
        """
        idle = self.pool
        if idle is None:
            raise DispatchError(f"{destination} gets nothing more: the dispatcher has been closed")
        try:
            connection = idle.connections.pop()
        except IndexError:
            connection = self._new_conn()  # type: ignore[assignment]  # urllib3 declares the base class
        reply = connection.exchange(destination, prefix, event, timeout, cap)
        if connection.sock is not None:
            if self.pool is None:
                connection.close()
            else:
                idle.connections.append(connection)
                if len(idle.connections) > 1:
                    idle.trim()
        return reply

    def take_open(self) -> PlainConnection | None:
        """An open connection that nobody uses, now the caller's to use and to close; None if there is none."""
        idle = self.pool
        while idle is not None and idle.connections:
            try:
                connection = idle.connections.pop()
            except IndexError:  # another thread was faster
                return None
            if connection.is_fresh():
                return connection
            connection.close()
        return None

    @property
    def has_open(self) -> bool:
        """Whether `take_open` may find something."""
        return self.pool is not None and bool(self.pool.connections)


class SecurePool(Pool, urllib3.HTTPSConnectionPool):
    """The same over TLS."""

    ConnectionCls = SecureConnection

    def take_open(self) -> None:
        """None: what TLS has decrypted already does not show on the socket, so nobody can wait for it there."""

    @property
    def has_open(self) -> bool:
        return False


class Pools:
    """All pools of a dispatcher. Thread-safe.

    Args:
        max_connections: idle connections kept per host.
    """

    def __init__(self, max_connections: int) -> None:
        # `weakref`, because a pool that is no longer kept may still be held by a route, and is to be closed as well.
        self._all: weakref.WeakSet[Pool] = weakref.WeakSet()
        self._manager = urllib3.PoolManager(num_pools=_MOST_POOLS, maxsize=max_connections)
        self._manager.pool_classes_by_scheme = {"http": Pool, "https": SecurePool}
        self._closed = False

    @cached_property
    def _tls(self) -> ssl.SSLContext:
        """The system's trust store, read once and only where needed: it takes 10 ms, and urllib3 would read it for
        every connection."""
        return ssl.create_default_context()

    def of(self, destination: Destination) -> Pool:
        """The pool for a destination's scheme, host and port."""
        options = {"ssl_context": self._tls} if destination.scheme == "https" else None
        pool = self._manager.connection_from_host(destination.host, destination.port, destination.scheme, options)
        ours = cast(Pool, pool)  # `pool_classes_by_scheme` says so
        self._all.add(ours)
        if self._closed:
            ours.close()
        return ours

    def close(self) -> None:
        """Close idle connections now, and each other one at the end of its exchange. Idempotent."""
        self._closed = True
        for pool in list(self._all):
            pool.close()
