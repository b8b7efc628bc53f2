"""MessageDispatcher: sends events to destinations, and their replies on to where replies go. Thread-safe."""

from __future__ import annotations

import threading
from collections.abc import Callable

from bus_core.dispatch.destination import DEFAULT_PORTS, Destination, is_single_label, parse_destination
from bus_core.dispatch.encoding import Encoded, encode
from bus_core.dispatch.pool import PlainPool, SecurePool
from bus_core.dispatch.reply import Reply
from bus_core.errors import DispatchError, ReplyError, ResponseError
from bus_core.message import HOPS_HEADER, DispatchDefaults, ForwardedHeaders, Message

Local = Callable[[str, str], tuple[str, str] | None]


class Route:
    """A destination made ready: its pool is found and its request line written. Keep it; thread-safe."""

    __slots__ = ("destination", "pool", "prefix")

    def __init__(self, destination: str, pool: PlainPool | SecurePool, prefix: bytes) -> None:
        self.destination = destination
        self.pool = pool
        self.prefix = prefix


class MessageDispatcher:
    """Dispatches messages to destinations over HTTP: no redirects, no retries, one deadline for each exchange.

    Args:
        timeout: seconds that one exchange may take where `send` is not told otherwise.
        max_reply_bytes: largest body of a reply.
        forwarded: the rule which headers of a reply travel on.
        local: for a single-label name and a namespace the URL and Host of a channel of this very bus, or None.
        max_connections: idle connections kept for each host.
    """

    def __init__(
        self,
        *,
        timeout: float = 30.0,
        max_reply_bytes: int = 1 << 20,
        forwarded: ForwardedHeaders | None = None,
        local: Local | None = None,
        max_connections: int = 64,
    ) -> None:
        self._timeout = timeout
        self._cap = max_reply_bytes
        self._forwarded = forwarded or ForwardedHeaders()
        self._local = local
        self._max_connections = max_connections
        self._lock = threading.Lock()
        self._pools: dict[tuple[str, str, int], PlainPool | SecurePool] = {}

    def dispatch_message(
        self, message: Message, destination: str = "", defaults: DispatchDefaults = DispatchDefaults()
    ) -> None:
        """Send a message, and its reply to `defaults.reply_to`; without a destination the message itself goes there.

        Raises:
            ReplyError: the message arrived and its reply did not; it carries the reply, so that a retry can send that.
            DispatchError: the message did not arrive; see `bus_core.errors` for the cases.
        """
        if not destination:
            if not defaults.reply_to:
                raise DispatchError("there is neither a destination nor a reply_to to send the message to")
            self.send(self.route(defaults.reply_to, defaults.namespace), message)
            return
        reply = self.send(self.route(destination, defaults.namespace), message)
        answer = self.reply_to_message(reply, message) if defaults.reply_to else None
        if answer is not None:
            try:
                self.send(self.route(defaults.reply_to, defaults.namespace), answer)
            except DispatchError as error:
                raise ReplyError(answer, defaults.reply_to, error) from error

    def route(self, destination: str, namespace: str = "default") -> Route:
        """Make a destination ready; nothing is resolved or connected yet.

        Raises:
            DestinationError: it is neither a DNS name nor an http(s) URL.
        """
        where = parse_destination(destination, namespace)
        host = where.authority
        if self._local is not None and is_single_label(destination):
            local = self._local(destination, namespace)
            if local is not None:
                where, host = parse_destination(local[0]), local[1]
        prefix = f"POST {where.target} HTTP/1.1\r\nhost: {host}\r\n".encode()
        return Route(destination, self._pool(where), prefix)

    def send(self, route: Route, event: Message | Encoded, *, timeout: float | None = None) -> Reply:
        """One POST.

        Returns:
            The complete answer, if it is 2xx.

        Raises:
            ResponseError: any other answer.
            DispatchError: no answer; see `bus_core.errors` for the cases.
        """
        encoded = event if isinstance(event, Encoded) else encode(event)
        wait = self._timeout if timeout is None else timeout
        reply = route.pool.exchange(route.destination, route.prefix, encoded, wait, self._cap)
        if 200 <= reply.status < 300:
            return reply
        raise ResponseError(route.destination, reply.status, reply.headers, reply.body)

    def reply_to_message(self, reply: Reply, origin: Message) -> Message | None:
        """The reply as an event of its own: its own forwarded headers, one hop further than its origin; None if empty."""
        if not reply.body:
            return None
        headers = {name: value for name, value in reply.headers.items() if name in self._forwarded}
        headers[HOPS_HEADER] = str(origin.hops + 1)
        return Message(headers, reply.body)

    def close(self) -> None:
        """Close the idle connections. Those in use close after their exchange."""
        with self._lock:
            pools = list(self._pools.values())
            self._pools.clear()
        for pool in pools:
            pool.close()

    def _pool(self, where: Destination) -> PlainPool | SecurePool:
        key = (where.scheme, where.host, where.port or DEFAULT_PORTS[where.scheme])
        with self._lock:
            pool = self._pools.get(key)
            if pool is None:
                kind = SecurePool if where.scheme == "https" else PlainPool
                pool = self._pools[key] = kind(where.host, where.port, maxsize=self._max_connections)
            return pool
