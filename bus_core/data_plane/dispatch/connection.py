"""Dispatch: one connection to a destination. It extends urllib3's with an exchange that has one deadline."""

from __future__ import annotations

import select
import socket
import struct
from http.client import HTTPException
from time import monotonic
from typing import Any

from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import HTTPError
from urllib3.util import ssl_wrap_socket

from bus_core.data_plane.dispatch.connect import SHORTEST_WAIT, connect, explained, time_left
from bus_core.data_plane.dispatch.encoding import Encoded
from bus_core.data_plane.dispatch.reply import Reply, ReplyReader
from bus_core.model.errors import DeadlineError, DispatchError

JOIN_LIMIT = 64 * 1024
"""Payloads up to this many bytes are copied behind their headers and leave at once; larger ones are never copied."""

IDLE_LIMIT = 60.0
"""Seconds after which an idle connection is not used again: a router may have dropped its state silently."""

_TRUSTED_SECONDS = 0.005
"""A connection that has been reused once is used again without a check for so long after an exchange. The check
releases the interpreter's lock: it costs 1 µs alone and 10 µs with eight threads. A server that closes unannounced does
so after its first answer, so the first reuse is always checked."""

_RECEIVE_BYTES = 64 * 1024
_DONTWAIT = int(socket.MSG_DONTWAIT)
_DEADLINE_SLACK = 0.05
"""Seconds by which an exchange may pass its deadline; less would cost more system calls."""
_NOTHING = memoryview(b"")

_CONNECTING, _SENDING, _WAITING = "connecting", "sending", "waiting for its answer"


class Connection(HTTPConnection):
    """An HTTP connection that sends an encoded event and reads the answer. Used by one thread at a time.

    `exchange` does all of it and blocks. `start` and `advance` do it in steps that never block, for the loop executor;
    they need a connection that is open.

    Args:
        host: a DNS name or an IP address, IPv6 without brackets.
        port: 1 to 65535.
        options: see urllib3.

    Attributes:
        sock: the open socket, plain or TLS; None while the connection is closed.
        idle_since: the end of the last exchange, by the monotonic clock.
    """

    sock: Any  # urllib3 declares a socket; http.client has None in it while the connection is closed

    def __init__(self, host: str, port: int | None = None, **options: Any) -> None:
        super().__init__(host, port, **options)
        self.idle_since = 0.0
        self._resolved_host = host  # `self.host` lacks a trailing dot, which the resolver needs
        self._armed = 0.0
        self._deadline = 0.0
        self._trusted = 0.0
        self._poll = select.poll()
        self._reader = ReplyReader()
        self._rest = _NOTHING
        self._whole = True

    def connect(self) -> None:
        """Open the socket before the deadline of the exchange under way. urllib3 would give each address all of it."""
        self.sock = connect(self._resolved_host, self.port, self._deadline)

    def exchange(self, destination: str, prefix: bytes, event: Encoded, timeout: float, cap: int) -> Reply:
        """Send one event and read the complete answer, whatever its status. Connects first where needed.

        Afterwards the connection is open (`sock` is set) only if it is fit for another exchange.

        Args:
            destination: the destination as errors may show it (see `bus_core.model.destination.masked`).
            prefix: request line and Host header.
            event: the other headers and the payload.
            timeout: seconds for all of it: connecting, sending, receiving. Only the system's resolver of names may
                take longer.
            cap: most bytes of a reply's body.

        Raises:
            DestinationError: the host's name does not resolve.
            DeadlineError: the time is up.
            DispatchError: network, TLS or protocol failed, or the answer is larger than its bounds.
        """
        now = monotonic()
        self._deadline = now + timeout
        step = _CONNECTING
        try:
            if self.sock is None or (now - self.idle_since > self._trusted and self._is_stale(now)):
                self._reopen()
            else:
                self._trusted = _TRUSTED_SECONDS
                if self._armed != timeout:
                    time_left(self._deadline)
                    self._arm(timeout)
            sock = self.sock
            step = _SENDING
            whole = self._send(sock, prefix, event)
            step = _WAITING
            reader = self._reader
            reply = reader.feed(sock.recv(_RECEIVE_BYTES), cap)
            while reply is None:
                self._rearm()
                reply = reader.feed(sock.recv(_RECEIVE_BYTES), cap)
        except (TimeoutError, BlockingIOError):
            self.close()
            raise self.late(destination, timeout, step) from None
        except (OSError, HTTPException, HTTPError, DispatchError) as error:
            self.close()
            raise explained(destination, self.host, step, error) from error
        except BaseException:
            self.close()
            raise
        self._end(whole)
        return reply

    def start(self, prefix: bytes, event: Encoded) -> bool:
        """Begin an exchange on this open connection, without waiting; whether the socket took all of it.

        Raises:
            OSError: the connection cannot be used.
        """
        self._whole = True
        self._push(prefix + event.head + event.payload)
        return not self._rest

    @property
    def unsent(self) -> bool:
        """Whether `advance` must also be called when the socket can take more, not only when it can be read."""
        return bool(self._rest)

    def advance(self, destination: str, cap: int) -> Reply | None:
        """The answer, if it is complete, else None; never waits. Leaves the connection, and raises, as `exchange`."""
        try:
            if self._rest:
                self._push(self._rest)
            reply = self._reader.feed(self.sock.recv(_RECEIVE_BYTES, _DONTWAIT), cap)
        except BlockingIOError:
            return None
        except (OSError, DispatchError) as error:
            self.close()
            raise explained(destination, self.host, _WAITING, error) from error
        if reply is not None and not (self._whole and not self._rest and self._reader.reusable):
            self.close()
        return reply

    def late(self, destination: str, timeout: float, step: str = _WAITING) -> DeadlineError:
        """The error of an exchange that took too long. The caller closes the connection."""
        if step is _WAITING and self._reader.received:
            step = "receiving its answer"
        return DeadlineError(f"{destination} took longer than {timeout:g} s: given up while {step}")

    def is_fresh(self) -> bool:
        """Whether this idle connection can be used again, as far as this side can see."""
        return self.sock is not None and not self._is_stale(monotonic())

    def _push(self, data: bytes | memoryview) -> None:
        try:
            sent = self.sock.send(data, _DONTWAIT)
        except BlockingIOError:
            sent = 0
        except (BrokenPipeError, ConnectionResetError):
            self._whole, sent = False, len(data)
        self._rest = memoryview(data)[sent:] if sent < len(data) else _NOTHING

    def _end(self, whole: bool) -> None:
        """After a complete answer, close this connection unless it can carry another exchange."""
        if whole and self._reader.reusable:
            self.idle_since = monotonic()
        else:
            self.close()

    def _is_stale(self, now: float) -> bool:
        """Whether an idle connection can no longer be used.

        A readable idle connection was closed by the other side, or carries unexpected bytes. This check misses a close
        that has not arrived yet. Then the exchange ends without an answer, and it is unknown whether the subscriber
        took the event. Dispatch does not repeat the POST (RFC 9110, section 9.2.2): delivery decides, and counts a
        retry.
        """
        return now - self.idle_since > IDLE_LIMIT or bool(self._poll.poll(0))

    def _reopen(self) -> None:
        self.close()
        self.connect()
        self._poll = select.poll()
        self._poll.register(self.sock, select.POLLIN)
        self._reader = ReplyReader()
        self._trusted = 0.0
        self._arm(time_left(self._deadline))

    def _arm(self, seconds: float) -> None:
        """Let no single send or receive block for longer.

        Uses the kernel's own time-outs on a blocking socket: with `settimeout` Python would poll before each operation.
        """
        wait = max(seconds, SHORTEST_WAIT)
        value = struct.pack("ll", int(wait), int(wait % 1 * 1_000_000))
        self.sock.settimeout(None)
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, value)
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, value)
        self._armed = seconds

    def _rearm(self) -> None:
        left = time_left(self._deadline)
        if self._armed - left > _DEADLINE_SLACK:
            self._arm(left)

    def _send(self, sock: socket.socket, prefix: bytes, event: Encoded) -> bool:
        """Send the request. False if the other side stopped reading: it may have answered before it did."""
        payload = event.payload
        try:
            if len(payload) <= JOIN_LIMIT:
                request = prefix + event.head + payload
                sent = sock.send(request)
                if sent != len(request):
                    self._send_rest(sock, request, sent)
            else:
                self._send_rest(sock, prefix + event.head, 0)
                self._send_rest(sock, payload, 0)
        except (BrokenPipeError, ConnectionResetError):
            return False
        return True

    def _send_rest(self, sock: socket.socket, data: bytes, sent: int) -> None:
        view = memoryview(data)[sent:]
        while view:
            self._rearm()
            view = view[sock.send(view) :]


class SecureConnection(Connection, HTTPSConnection):
    """A connection over TLS. The pool's context checks the certificate and the host name."""

    def connect(self) -> None:
        """See `Connection.connect`; the TLS handshake has the same deadline."""
        super().connect()
        try:
            self.sock = ssl_wrap_socket(self.sock, ssl_context=self.ssl_context, server_hostname=self.host)
        except BaseException:
            self.close()
            raise

    def _arm(self, seconds: float) -> None:
        # Python's TLS layer ignores the kernel's time-outs on a blocking socket, and would wait without end.
        self.sock.settimeout(seconds)
        self._armed = seconds
