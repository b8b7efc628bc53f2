"""Dispatch: MessageDispatcher, one POST of one event to one destination, and its reply."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from bus_core.data_plane.dispatch.connection import Connection
from bus_core.data_plane.dispatch.encoding import Encoded, encode
from bus_core.data_plane.dispatch.pool import Pool, Pools
from bus_core.data_plane.dispatch.reply import Reply
from bus_core.model.destination import is_single_label, masked, parse_destination
from bus_core.model.errors import DispatchError, ReplyError, ResponseError
from bus_core.model.headers import ForwardedHeaders
from bus_core.model.message import HOPS_HEADER, DispatchDefaults, Message
from bus_core.model.references import DEFAULT_NAMESPACE

_NO_DEFAULTS = DispatchDefaults()


class Route:
    """One prepared destination: nothing is looked up or formatted per event. `MessageDispatcher.route` creates it, only
    for that dispatcher. Immutable, safe to share between threads.

    Attributes:
        destination: the URL that events are sent to. It may hold secrets: show `shown` instead.
        shown: the URL with the values of its query masked, for errors and logs.
        pool: the connections to its host and port.
        prefix: request line and Host header.
    """

    __slots__ = ("destination", "pool", "prefix", "shown")

    def __init__(self, destination: str, pool: Pool, prefix: bytes) -> None:
        self.destination = destination
        self.shown = masked(destination)
        self.pool = pool
        self.prefix = prefix

    def __repr__(self) -> str:
        return f"Route({self.shown!r})"

    @property
    def is_open(self) -> bool:
        """Whether there is an open idle connection that the loop executor can use."""
        return self.pool.has_open


class MessageDispatcher:
    """Sends events over HTTP. Never follows a redirect, never sends twice, never undoes a content-encoding.

    Requests go straight to their destination. Proxy variables of the environment are ignored, because most destinations
    are names that only the cluster knows. Certificates are checked against the system's trust store.

    Args:
        timeout: seconds for a whole exchange, from connecting to the last byte of the answer.
        max_reply_bytes: most bytes of a reply's body.
        forwarded: decides which headers are forwarded; None for the standard rule.
        local: tells where a channel of this bus listens: given a single-label name and a namespace, a URL and the Host
            header to send there, or None for a name that is no channel of this bus. Asked anew for each route.
        max_connections: the limit of idle connections per host. Callers limit the connections in use.

    Thread-safe. `close` it when done.
    """

    def __init__(
        self,
        *,
        timeout: float = 30.0,
        max_reply_bytes: int = 1 << 20,
        forwarded: ForwardedHeaders | None = None,
        local: Callable[[str, str], tuple[str, str] | None] | None = None,
        max_connections: int = 64,
    ) -> None:
        self._timeout = timeout
        self._max_reply_bytes = max_reply_bytes
        self._forwarded = forwarded or ForwardedHeaders()
        self._local = local
        self._pools = Pools(max_connections)

    def dispatch_message(
        self, message: Message, destination: str = "", defaults: DispatchDefaults = _NO_DEFAULTS
    ) -> None:
        """Send an event, and its reply, if it has a body, on to `defaults.reply_to`.

        Args:
            message: the event. Only forwarded headers are sent.
            destination: a DNS name or an http(s) URL; empty: the event itself goes to `defaults.reply_to`.
            defaults: `namespace` completes names of a single label; an empty `reply_to` drops replies.

        Raises:
            InvalidMessageError: a header cannot be sent.
            ResponseError: the destination answered with anything but 2xx.
            DispatchError: the destination could not be reached, or gave no complete answer in time.
            ReplyError: the event arrived, but its reply did not.
        """
        if not destination:
            if defaults.reply_to:
                self.send(self.route(defaults.reply_to, defaults.namespace), message)
            return
        answer = self.send(self.route(destination, defaults.namespace), message)
        reply = self.reply_to_message(answer, message)
        if reply is None or not defaults.reply_to:
            return
        try:
            self.send(self.route(defaults.reply_to, defaults.namespace), reply)
        except DispatchError as error:
            raise ReplyError(reply, defaults.reply_to, error) from error

    def route(self, destination: str, namespace: str = DEFAULT_NAMESPACE) -> Route:
        """Prepare a destination. Keep the result until the subscription changes.

        Raises:
            DestinationError: the text is neither a DNS name nor an http(s) URL. `send` resolves the name.
        """
        namespace = namespace or DEFAULT_NAMESPACE
        channel = self._local(destination, namespace) if self._local and is_single_label(destination) else None
        if channel is None:
            parsed = parse_destination(destination, namespace)
        else:
            url, host_header = channel
            parsed = replace(parse_destination(url), authority=host_header)
        prefix = f"POST {parsed.target} HTTP/1.1\r\nhost: {parsed.authority}\r\n".encode()
        return Route(parsed.url, self._pools.of(parsed), prefix)

    def send(self, route: Route, event: Message | Encoded, *, timeout: float | None = None) -> Reply:
        """One POST.

        Args:
            route: from this dispatcher's `route`.
            event: of a Message only the forwarded headers are sent; an Encoded goes as it is.
            timeout: seconds for the whole exchange; None for the dispatcher's own.

        Raises:
            InvalidMessageError: a header of the Message cannot be sent.
            ResponseError: the destination answered with anything but 2xx.
            DestinationError: its name does not resolve.
            DeadlineError: no complete answer in time.
            DispatchError: network, TLS or protocol failed, or the reply is larger than the cap.
        """
        reply = route.pool.exchange(
            route.shown,
            route.prefix,
            event if isinstance(event, Encoded) else encode(event, self._forwarded),
            self._timeout if timeout is None else timeout,
            self._max_reply_bytes,
        )
        return _judged(route, reply)

    def start(self, connection: Connection, route: Route, event: Encoded) -> bool:
        """Begin one POST on an open connection of the route's pool, without waiting: the first step of `send` for the
        loop executor. The caller keeps the deadline.

        Returns:
            False if the socket did not take all of it: `connection.unsent` is true until `advance` has sent the rest.

        Raises:
            OSError: the connection cannot be used.
        """
        return connection.start(route.prefix, event)

    def advance(self, connection: Connection, route: Route) -> Reply | None:
        """The answer to a POST that was started, once it is complete, else None. Call it when the socket is ready.

        Raises:
            DispatchError: as `send` does.
        """
        reply = connection.advance(route.shown, self._max_reply_bytes)
        return reply if reply is None or 200 <= reply.status < 300 else _judged(route, reply)

    def reply_to_message(self, reply: Reply, origin: Message) -> Message | None:
        """The reply as an event: its body and its forwarded headers; None if the body is empty.

        `knative-hops` is one more than the origin's, whatever the subscriber sent, so that a loop of replies ends.
        """
        if not reply.body:
            return None
        headers = {name: value for name, value in reply.headers.items() if name in self._forwarded}
        headers[HOPS_HEADER] = str(origin.hops + 1)
        return Message(headers, reply.body)

    def close(self) -> None:
        """Close idle connections now, and the others at the end of their exchange. `send` then raises an error."""
        self._pools.close()


def _judged(route: Route, reply: Reply) -> Reply:
    if 200 <= reply.status < 300:
        return reply
    raise ResponseError(route.shown, reply.status, dict(reply.headers), reply.body)
