"""Dispatch: the idle connections of each destination, kept for the next attempt."""

from __future__ import annotations

import ssl
import threading
import weakref
from collections import OrderedDict, deque
from functools import cached_property
from time import monotonic

from bus_core.data_plane.dispatch.connection import IDLE_LIMIT, Connection, SecureConnection
from bus_core.data_plane.dispatch.encoding import Encoded
from bus_core.data_plane.dispatch.reply import Reply
from bus_core.model.destination import Destination
from bus_core.model.errors import DispatchError

_MAX_POOLS = 1024
"""Destinations whose pools are kept for the next `Pools.of`. A route keeps its own pool alive for longer."""


class Pool:
    """The connections to one scheme, host and port. Thread-safe: each exchange has a connection of its own.

    There is no lock: a deque's `append` and `pop` are atomic, and an exchange needs one of each (0.1 µs).

    Args:
        host: a DNS name or an IP address, IPv6 without brackets.
        port: 1 to 65535.
        max_idle: idle connections that are kept; the one unused for longest makes room.
    """

    def __init__(self, host: str, port: int, max_idle: int) -> None:
        self.host = host
        self.port = port
        self.closed = False
        self._max_idle = max_idle
        self._idle: deque[Connection] = deque()  # the last used on the right

    def exchange(self, destination: str, prefix: bytes, event: Encoded, timeout: float, cap: int) -> Reply:
        """Send one event on an idle connection, or on a new one. See `Connection.exchange`.

        Raises:
            DispatchError: and its kinds; also when the pool has been closed.
        """
        if self.closed:
            raise DispatchError(f"{destination} gets nothing more: the dispatcher has been closed")
        try:
            connection = self._idle.pop()
        except IndexError:
            connection = self.connect()
        reply = connection.exchange(destination, prefix, event, timeout, cap)
        if connection.sock is not None:
            self._keep(connection)
        return reply

    def connect(self) -> Connection:
        """A new connection of this pool. It opens its socket with its first exchange."""
        return Connection(self.host, self.port)

    def take_open(self) -> Connection | None:
        """An open connection that no exchange uses, now the caller's to use and to close; None if there is none."""
        while self._idle:
            try:
                connection = self._idle.pop()
            except IndexError:  # another thread was faster
                return None
            if connection.is_fresh():
                return connection
            connection.close()
        return None

    @property
    def has_open(self) -> bool:
        """Whether `take_open` may find something."""
        return bool(self._idle)

    def close(self) -> None:
        """Close idle connections now and each other one at the end of its exchange. Idempotent."""
        self.closed = True
        while self._idle:
            try:
                self._idle.pop().close()
            except IndexError:  # an exchange has just taken it, and closes it at its end
                return

    def _keep(self, connection: Connection) -> None:
        idle = self._idle
        idle.append(connection)
        if self.closed:
            self.close()
        elif len(idle) > 1:
            self._trim()

    def _trim(self) -> None:
        """Close the connection unused for longest, if there are too many or it has been idle for too long."""
        try:
            oldest = self._idle.popleft()
        except IndexError:
            return
        if len(self._idle) >= self._max_idle or monotonic() - oldest.idle_since > IDLE_LIMIT:
            oldest.close()
        else:
            self._idle.appendleft(oldest)


class SecurePool(Pool):
    """The same over TLS.

    Args:
        host: see `Pool`; also the name that the server's certificate must have.
        port: see `Pool`.
        max_idle: see `Pool`.
        tls: how certificates are checked.
    """

    def __init__(self, host: str, port: int, max_idle: int, tls: ssl.SSLContext) -> None:
        super().__init__(host, port, max_idle)
        self._tls = tls

    def connect(self) -> Connection:
        return SecureConnection(self.host, self.port, self._tls)

    def take_open(self) -> None:
        """None: data that TLS has decrypted already does not show on the socket, so epoll cannot wait for it."""

    @property
    def has_open(self) -> bool:
        return False


class Pools:
    """All pools of a dispatcher. Thread-safe.

    Args:
        max_connections: idle connections kept per destination.
    """

    def __init__(self, max_connections: int) -> None:
        self._max_connections = max_connections
        self._pools_lock = threading.Lock()  # guards _recent, _all and _closed
        self._recent: OrderedDict[tuple[str, str, int], Pool] = OrderedDict()  # the last used at the end
        # Weak references, because `close` must also reach a pool that only a route still holds.
        self._all: weakref.WeakSet[Pool] = weakref.WeakSet()
        self._closed = False

    def of(self, destination: Destination) -> Pool:
        """The pool for a destination's scheme, host and port."""
        key = (destination.scheme, destination.host, destination.port)
        with self._pools_lock:
            pool = self._recent.get(key)
            if pool is None:
                pool = self._recent[key] = self._make(destination)
                self._all.add(pool)
                if len(self._recent) > _MAX_POOLS:
                    self._recent.popitem(last=False)
            self._recent.move_to_end(key)
            if self._closed:
                pool.close()
            return pool

    def close(self) -> None:
        """Close idle connections now, and each other one at the end of its exchange. Idempotent."""
        with self._pools_lock:
            self._closed = True
            pools = list(self._all)
        for pool in pools:
            pool.close()

    def _make(self, destination: Destination) -> Pool:
        if destination.scheme == "https":
            return SecurePool(destination.host, destination.port, self._max_connections, self._tls)
        return Pool(destination.host, destination.port, self._max_connections)

    @cached_property
    def _tls(self) -> ssl.SSLContext:
        """The system's trust store, or the file that SSL_CERT_FILE names. Read once, and only where needed: 10 ms."""
        context = ssl.create_default_context()
        context.set_alpn_protocols(["http/1.1"])
        return context
