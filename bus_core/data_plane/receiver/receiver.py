"""Receiver: MessageReceiver takes events in over HTTP and hands each one to a function."""

from __future__ import annotations

import asyncio
import concurrent.futures
import math
import threading
from typing import Any

import falcon
import falcon.asgi

from bus_core import telemetry
from bus_core.data_plane.receiver.answers import refuse, too_large
from bus_core.data_plane.receiver.application import EventApplication
from bus_core.data_plane.receiver.body import BodyError, EventRequest, read_body, whole_body
from bus_core.data_plane.receiver.function import EventFunction, ReceiverFunc
from bus_core.data_plane.receiver.in_flight import EventsInFlight
from bus_core.data_plane.server import ASGIApp, Connections, Limits, bind, serve
from bus_core.model.addresses import format_address
from bus_core.model.errors import InvalidMessageError, MessageTooLargeError, TemporaryError, UnknownChannelError
from bus_core.model.headers import ForwardedHeaders
from bus_core.model.message import Message
from bus_core.model.references import ChannelReference

MAX_BODY = 1 << 20
_CACHE_LIMIT = 1024
_FLUSH = 0.25
_BODY_GRACE = 5.0
"""Seconds by which the server's deadline for a body is later than the receiver's, whose answer says more."""

log = telemetry.get_logger(__name__)


class MessageReceiver:
    """Receives events on POST / and calls a function with the channel and the message.

    `run` listens by itself. `asgi` is the same as an application for any ASGI server. `handle_request` is a responder
    for a Falcon application; with `falcon.asgi.App(request_type=MessageReceiver.request_type)` it takes chunked bodies
    too, otherwise it answers them 411. Not thread-safe: use it on one event loop at a time.

    Args:
        receiver_func: `def` (called on a pool of threads) or `async def` (awaited on the event loop). Returning answers
            202. It raises `UnknownChannelError` for 404, `InvalidMessageError` for 400, `MessageTooLargeError` for
            413, `TemporaryError` for 503 with Retry-After; anything else is answered 500.
        bind: HOST:PORT for `run`; port 0 takes a free one.
        max_body_bytes: larger events are refused, by their Content-Length before they are read.
        body_timeout: seconds that a body may take to arrive.
        forwarded: the rule which headers reach the message.
        threads: how many calls of a `def` run at once.
    """

    request_type = EventRequest

    def __init__(
        self,
        receiver_func: ReceiverFunc,
        *,
        bind: str = "127.0.0.1:8080",
        max_body_bytes: int = MAX_BODY,
        body_timeout: float = 30.0,
        forwarded: ForwardedHeaders | None = None,
        threads: int = 32,
    ) -> None:
        self._function = EventFunction(receiver_func, threads)
        self._bind = bind
        self._cap = max_body_bytes
        self._body_timeout = body_timeout
        self._forwarded = forwarded or ForwardedHeaders()
        self._channels = _ChannelsByHost()
        self._accepted = _AcceptedCounter()
        self._in_flight = EventsInFlight()
        self._refusing = ""
        self.address: str | None = None
        """HOST:PORT once `run` listens."""
        self.listening = threading.Event()
        self.asgi: ASGIApp = EventApplication(self, max_body_bytes)
        """A complete application: POST on / only."""

    async def handle_request(self, req: falcon.asgi.Request, resp: falcon.asgi.Response, **_: Any) -> None:
        """A Falcon responder: `on_post = receiver.handle_request` mounts it in any Falcon ASGI application."""
        if self._refusing:
            refuse(resp, 503, "stopping", self._refusing, retry_after=1.0)
            return
        task = self._in_flight.begin()
        try:
            await self._take(req, resp)
        finally:
            self._in_flight.end(task)

    def run(self, stop: threading.Event) -> None:
        """Listen and receive until `stop` is set. Works on any thread; the function shares the caller's memory. After
        it has returned, it can be called again.

        Raises:
            ConfigurationError: the address cannot be used.
        """
        with bind(self._bind) as listener:
            self.address = format_address(listener.getsockname()[:2])
            self._refusing = ""
            self._in_flight.reopen()
            self.listening.set()
            limits = Limits(max_connections=10_000, body_timeout=self._body_timeout + _BODY_GRACE)
            try:
                serve(_ReceiverService(self), [listener], stop, limits)
            finally:
                self.listening.clear()

    def refuse(self, why: str) -> None:
        """From now on answer every event 503 + Retry-After."""
        self._refusing = why

    async def drained(self, timeout: float = math.inf) -> int:
        """Wait until the events that are being received are answered. Call `refuse` before.

        Args:
            timeout: seconds. An event that is not answered by then is cancelled and answered 503. The thread of a plain
                `def` cannot be cancelled: its event is answered, and the thread is left behind.

        Returns:
            How many events were cancelled.
        """
        cancelled = await self._in_flight.drain(timeout)
        self._accepted.flush()
        self._function.close()
        return cancelled

    @property
    def in_flight(self) -> int:
        """How many events are being received now. Read it on the event loop."""
        return len(self._in_flight)

    async def _take(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        channel: ChannelReference | None = None
        try:
            channel, headers, length = self._read_head(req)
            if length > self._cap:
                raise MessageTooLargeError(too_large(length, self._cap))
            body = whole_body(req, length)
            if body is None:
                body = await read_body(req, self._cap, length, self._body_timeout)
            accepted = self._function.call(channel, Message(headers, body))
            if accepted is not None:
                await accepted
        except UnknownChannelError as error:
            refuse(resp, 404, "unknown_channel", str(error) or "there is no such channel")
        except MessageTooLargeError as error:
            refuse(resp, 413, "too_large", str(error) or "the event is too large", close=True)
        except InvalidMessageError as error:
            refuse(resp, 400, "invalid", str(error) or "the event is malformed")
        except TemporaryError as error:
            refuse(resp, 503, "busy", str(error) or "the bus is busy", retry_after=error.retry_after)
        except BodyError as error:
            refuse(resp, error.status, error.reason, str(error), close=True)
        except (asyncio.CancelledError, concurrent.futures.CancelledError):
            if self._in_flight.must_end():
                raise
            # `drained` gave the event up, or the driver waited for something that was cancelled, such as a `submit`.
            refuse(resp, 503, "busy", "the event was given up while it was received", retry_after=1.0)
        except Exception:
            log.exception("an event could not be received", channel=str(channel or ""))
            refuse(resp, 500, "error", "the bus could not take the event; its log says why")
        else:
            resp.status = falcon.HTTP_202
            self._accepted.count(channel)

    def _read_head(self, req: falcon.asgi.Request) -> tuple[ChannelReference, dict[str, str], int]:
        """Channel, forwarded headers, and the announced length of the body (-1: none)."""
        host: bytes | None = None
        length = -1
        for name, value in req.scope["headers"]:
            if name == b"host":
                if host is not None:
                    raise InvalidMessageError("there are two Host headers; which channel is meant?")
                host = value
            elif name == b"content-length":
                length = int(value)
        return self._channels.find(host), self._forwarded.select(req.scope["headers"]), length


class _ChannelsByHost:
    """The channels that Host headers name, remembered."""

    def __init__(self) -> None:
        self._known: dict[bytes, ChannelReference] = {}

    def find(self, host: bytes | None) -> ChannelReference:
        if not host:
            raise InvalidMessageError("the Host header is missing; send to NAME.NAMESPACE, for example orders.default")
        channel = self._known.get(host)
        if channel is None:
            try:
                channel = ChannelReference.from_host(host.decode("ascii"))
            except UnicodeDecodeError:
                raise InvalidMessageError("the Host header holds bytes that no DNS name has") from None
            if len(self._known) < _CACHE_LIMIT:  # hosts come from strangers: the cache must not grow with them
                self._known[host] = channel
        return channel


class _AcceptedCounter:
    """Counts events, and tells telemetry a few times a second: an increment in memory shared by workers costs 5 µs."""

    def __init__(self) -> None:
        self._counts: dict[ChannelReference, int] = {}

    def count(self, channel: ChannelReference) -> None:
        if not self._counts:
            asyncio.get_running_loop().call_later(_FLUSH, self.flush)
        self._counts[channel] = self._counts.get(channel, 0) + 1

    def flush(self) -> None:
        counts, self._counts = self._counts, {}
        for channel, number in counts.items():
            telemetry.accepted.inc(str(channel), by=number)


class _ReceiverService:
    """A receiver as a service of its own."""

    def __init__(self, receiver: MessageReceiver) -> None:
        self._receiver = receiver

    def app_at(self, address: tuple[str, int]) -> ASGIApp:
        return self._receiver.asgi

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Nothing to start."""

    async def stop(self, connections: Connections) -> None:
        self._receiver.refuse("the receiver is stopping")
        connections.close_idle()
        await self._receiver.drained()
