"""MessageReceiver: takes events in over HTTP and hands them to a function."""

from __future__ import annotations

import asyncio
import concurrent.futures
import inspect
import math
import threading
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import falcon
import falcon.asgi

from bus_core import telemetry
from bus_core.data_plane.server import ASGIApp, Connections, Limits, Receive, Scope, Send, bind, serve
from bus_core.model.errors import InvalidMessageError, MessageTooLargeError, TemporaryError, UnknownChannelError
from bus_core.model.headers import ForwardedHeaders
from bus_core.model.message import Message
from bus_core.model.references import ChannelReference

ReceiverFunc = Callable[[ChannelReference, Message], Awaitable[None] | None]

MAX_BODY = 1 << 20
_CACHE_LIMIT = 1024
_FLUSH = 0.25

log = telemetry.get_logger(__name__)


class _TruncatedError(Exception):
    """The sender went away before the body was complete."""


class _SlowError(Exception):
    """The body took too long. Not a TimeoutError, which a driver may raise as well."""


class MessageReceiver:
    """Receives events on POST / and calls a function with the channel and the message.

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
        self._function = receiver_func
        self._is_async = inspect.iscoroutinefunction(receiver_func)
        self._pool = None if self._is_async else ThreadPoolExecutor(threads, thread_name_prefix="receive")
        self._bind = bind
        self._cap = max_body_bytes
        self._body_timeout = body_timeout
        self._forwarded = forwarded or ForwardedHeaders()
        self._channels: dict[bytes, ChannelReference] = {}
        self._accepted: dict[ChannelReference, int] = {}  # since the last flush
        self._in_flight = 0
        self._refusing = ""
        self.address: str | None = None
        """HOST:PORT once `run` listens."""
        self.listening = threading.Event()
        self.asgi: ASGIApp = self._make_app()
        """A complete application: POST on / only."""

    async def handle_request(self, req: falcon.asgi.Request, resp: falcon.asgi.Response, **_: Any) -> None:
        """A Falcon responder: `on_post = receiver.handle_request` mounts it in any Falcon ASGI application."""
        if self._refusing:
            self._refuse(resp, 503, "stopping", self._refusing, retry_after=1.0)
            return
        self._in_flight += 1
        try:
            await self._take(req, resp)
        finally:
            self._in_flight -= 1

    def run(self, stop: threading.Event) -> None:
        """Listen and receive until `stop` is set. Works on any thread; the function shares the caller's memory.

        Raises:
            ConfigurationError: the address cannot be used.
        """
        with bind(self._bind) as listener:
            host, port = listener.getsockname()[:2]
            self.address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
            self.listening.set()
            try:
                serve(_Alone(self), [listener], stop, Limits(max_connections=10_000))
            finally:
                self.listening.clear()

    def refuse(self, why: str) -> None:
        """From now on answer every event 503 + Retry-After."""
        self._refusing = why

    async def drained(self) -> None:
        """Wait until the events that are being received are answered. Call `refuse` before."""
        while self._in_flight:
            await asyncio.sleep(0.005)
        self._flush()
        if self._pool is not None:
            self._pool.shutdown(wait=False)

    async def _take(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        channel: ChannelReference | None = None
        try:
            channel, headers, length = self._read_head(req)
            if length > self._cap:
                raise MessageTooLargeError(self._too_large(length))
            body = await _read_body(req, self._cap, length, self._body_timeout)
            await self._call(channel, Message(headers, body))
        except UnknownChannelError as error:
            self._refuse(resp, 404, "unknown_channel", str(error) or "there is no such channel")
        except MessageTooLargeError as error:
            self._refuse(resp, 413, "too_large", str(error) or "the event is too large", close=True)
        except InvalidMessageError as error:
            self._refuse(resp, 400, "invalid", str(error) or "the event is malformed")
        except TemporaryError as error:
            self._refuse(resp, 503, "busy", str(error) or "the bus is busy", retry_after=error.retry_after)
        except _TruncatedError:
            self._refuse(resp, 400, "truncated", "the body ended before it was complete", close=True)
        except _SlowError:
            self._refuse(resp, 408, "timeout", f"the body took longer than {self._body_timeout:g} seconds", close=True)
        except (asyncio.CancelledError, concurrent.futures.CancelledError):
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            # Not this call was cancelled but what the driver waited for, such as the outcome of a `submit`.
            self._refuse(resp, 503, "busy", "the event was given up while it was received", retry_after=1.0)
        except Exception:
            log.exception("an event could not be received", channel=str(channel or ""))
            self._refuse(resp, 500, "error", "the bus could not take the event; its log says why")
        else:
            resp.status = falcon.HTTP_202
            self._count(channel)

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
        channel = self._channels.get(host or b"") or self._learn(host)
        return channel, self._forwarded.select(req.scope["headers"]), length

    def _learn(self, host: bytes | None) -> ChannelReference:
        if not host:
            raise InvalidMessageError("the Host header is missing; send to NAME.NAMESPACE, for example orders.default")
        try:
            channel = ChannelReference.from_host(host.decode("ascii"))
        except UnicodeDecodeError:
            raise InvalidMessageError("the Host header holds bytes that no DNS name has") from None
        if len(self._channels) < _CACHE_LIMIT:  # hosts come from strangers: the cache must not grow with them
            self._channels[host] = channel
        return channel

    async def _call(self, channel: ChannelReference, message: Message) -> None:
        if self._pool is None:
            accepted = self._function(channel, message)
            if accepted is not None:
                await accepted
        else:
            loop = asyncio.get_running_loop()
            accepted = await loop.run_in_executor(self._pool, self._function, channel, message)
            if inspect.isawaitable(accepted):  # what looks like a plain function may wrap one that is not
                await accepted

    def _count(self, channel: ChannelReference) -> None:
        """Count an event. Telemetry is told now and then: an increment in memory shared by workers costs 5 µs."""
        if not self._accepted:
            asyncio.get_running_loop().call_later(_FLUSH, self._flush)
        self._accepted[channel] = self._accepted.get(channel, 0) + 1

    def _flush(self) -> None:
        counts, self._accepted = self._accepted, {}
        for channel, number in counts.items():
            telemetry.accepted.inc(str(channel), by=number)

    def _refuse(
        self,
        resp: falcon.asgi.Response,
        status: int,
        reason: str,
        text: str,
        *,
        retry_after: float | None = None,
        close: bool = False,
    ) -> None:
        telemetry.refused.inc(reason)
        _answer(resp, status, text)
        if retry_after is not None:
            resp.set_header("retry-after", str(max(1, math.ceil(retry_after))))
        if close:
            resp.set_header("connection", "close")  # what is left of the body is not worth reading

    def _make_app(self) -> ASGIApp:
        app: Any = falcon.asgi.App()
        app.resp_options.default_media_type = None  # a 202 is empty, and of no type
        app.add_route("/", _Root(self))
        app.add_sink(_elsewhere, "/")

        async def early(scope: Scope, receive: Receive, send: Send) -> None:
            """What has to be decided before Falcon, which waits for the first piece of the body before it does anything
            and fails on a query that is no text."""
            scope["query_string"] = b""  # events have none
            if scope["method"] != "POST" and scope["path"] == "/":  # Falcon would answer OPTIONS itself
                telemetry.refused.inc("method")
                await _send_early(scope, send, 405, "events are sent with POST", (b"allow", b"POST"))
                return
            length = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
            if int(length) > self._cap:
                telemetry.refused.inc("too_large")
                # The connection closes, for what follows on it is a body that nobody reads.
                await _send_early(scope, send, 413, self._too_large(int(length)), (b"connection", b"close"))
                return
            await app(scope, receive, send)

        return early

    def _too_large(self, length: int) -> str:
        return f"the event has {length} bytes, at most {self._cap} are taken"


class _Root:
    """The resource at /."""

    def __init__(self, receiver: MessageReceiver) -> None:
        self.on_post = receiver.handle_request


class _Alone:
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


async def _read_body(req: falcon.asgi.Request, cap: int, length: int, timeout: float) -> bytes:
    """The whole body, from the ASGI events themselves: Falcon's stream turns a disconnect into the end of the body
    (measured), so that an event cut short would look whole.

    Raises:
        _TruncatedError: the sender went away first.
        MessageTooLargeError: more than `cap` bytes came.
        _SlowError: the rest did not come within `timeout` seconds.
    """
    event: Mapping[str, Any] = req._first_event or await req._receive()
    if event["type"] != "http.request":
        raise _TruncatedError
    body: bytes = event.get("body", b"")
    if event.get("more_body", False):
        try:
            async with asyncio.timeout(timeout):
                body = await _read_rest(req._receive, body, cap, asyncio.get_running_loop().time() + timeout)
        except TimeoutError:
            raise _SlowError from None
    if len(body) > cap:
        raise MessageTooLargeError(f"the event is larger than the {cap} bytes that are taken")
    if length >= 0 and len(body) != length:
        raise _TruncatedError
    return body


async def _read_rest(receive: Receive, first: bytes, cap: int, deadline: float) -> bytes:
    """The pieces after the first. The deadline is looked at for each, because `asyncio.wait_for` of Python 3.11, which
    gunicorn waits with, swallows a cancellation that meets a piece: a drip-fed body would never end (measured)."""
    parts, size, more = [first], len(first), True
    now = asyncio.get_running_loop().time
    while more:
        if size > cap:
            raise MessageTooLargeError(f"the event is larger than the {cap} bytes that are taken")
        if now() > deadline:
            raise TimeoutError
        event = await receive()
        if event["type"] != "http.request":
            raise _TruncatedError
        parts.append(event.get("body", b""))
        size += len(parts[-1])
        more = event.get("more_body", False)
    return b"".join(parts)


async def _elsewhere(req: falcon.asgi.Request, resp: falcon.asgi.Response, **_: Any) -> None:
    telemetry.refused.inc("path")
    _answer(resp, 404, "events are received on / only; the Host header names the channel")


async def _send_early(scope: Scope, send: Send, status: int, text: str, header: tuple[bytes, bytes]) -> None:
    """An answer without Falcon; without its body where HEAD asks."""
    body = f"{text}\n".encode()
    about = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": [*about, header]})
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})


def _answer(resp: falcon.asgi.Response, status: int, text: str) -> None:
    resp.status = falcon.code_to_http_status(status)
    resp.content_type = "text/plain; charset=utf-8"
    resp.text = text + "\n"
