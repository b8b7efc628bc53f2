"""One connection to a destination: urllib3's, with an exchange of our own that is lean and has one deadline."""

from __future__ import annotations

import select
import socket
import ssl
import struct
from http.client import HTTPException
from time import monotonic
from typing import Any

from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import HTTPError

from bus_core.data_plane.dispatch.encoding import Encoded
from bus_core.data_plane.dispatch.reply import Reply, ReplyReader
from bus_core.model.destination import is_localhost
from bus_core.model.errors import DeadlineError, DestinationError, DispatchError

JOIN_LIMIT = 64 * 1024
"""Payloads up to this many bytes are copied behind their headers and leave at once; larger ones are never copied."""

IDLE_LIMIT = 60.0
"""Seconds after which an idle connection is not used again: what is between may have forgotten it without a word."""

_TRUSTED_SECONDS = 0.005
"""A connection that has been reused once is, for so long after an exchange, used again without a look at it. The look
gives the interpreter's lock away: it costs 1 µs alone and 10 µs with eight threads. A server that closes without saying
so does it after its first answer, hence the first reuse is never trusted."""

_RECEIVE_BYTES = 64 * 1024
_DEADLINE_SLACK = 0.05
"""Seconds by which an exchange may pass its deadline; less would cost more system calls."""
_SHORTEST_WAIT = 0.001
"""Seconds. To the operating system a time-out of zero means none."""

_NOTHING = memoryview(b"")

_CONNECTING, _SENDING, _WAITING = "connecting", "sending", "waiting for its answer"


class PlainConnection(HTTPConnection):
    """An HTTP connection that sends a request made beforehand and reads its answer. Used by one thread at a time.

    `exchange` does all of it and blocks. `start` and `go_on` do it in steps that never block, for whoever waits for
    many connections at once; they need one that is open.

    Attributes:
        idle_since: when the last exchange ended, by the monotonic clock.
    """

    sock: Any  # None or a socket, plain or TLS

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.idle_since = 0.0
        self._armed = 0.0
        self._deadline = 0.0
        self._trusted = 0.0
        self._poll = select.poll()
        self._reader = ReplyReader()
        self._rest = _NOTHING
        self._whole = True

    def exchange(self, destination: str, prefix: bytes, event: Encoded, timeout: float, cap: int) -> Reply:
        """Send one event and read the complete answer, whatever its status. Connects first where needed.

        Afterwards the connection is open (`sock` is set) only if it is fit for another exchange.

        Args:
            destination: names the other side in errors.
            prefix: request line and Host header.
            event: the other headers and the payload.
            timeout: seconds for all of it: connecting, sending, receiving. The system's resolver of names is the one
                thing that this does not cut short.
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
                    self._left()
                    self._arm(timeout)
            step = _SENDING
            whole = self._send(prefix, event)
            step = _WAITING
            reader = self._reader
            reply = reader.feed(self.sock.recv(_RECEIVE_BYTES), cap)
            while reply is None:
                self._rearm()
                reply = reader.feed(self.sock.recv(_RECEIVE_BYTES), cap)
        except (TimeoutError, BlockingIOError):
            self.close()
            raise self.late(destination, timeout, step) from None
        except (OSError, HTTPException, HTTPError, DispatchError) as error:
            self.close()
            raise _explained(destination, self.host, step, error) from error
        except BaseException:
            self.close()
            raise
        self._end(whole)
        return reply

    def start(self, prefix: bytes, event: Encoded) -> None:
        """Begin an exchange on this open connection, without waiting. What the socket does not take yet is `unsent`."""
        self._whole = True
        self._push(prefix + event.head + event.payload)

    @property
    def unsent(self) -> bool:
        """Whether `go_on` is to be called when the socket can take more, besides when there is something to read."""
        return bool(self._rest)

    def go_on(self, destination: str, cap: int) -> Reply | None:
        """The answer, if it is complete; never waits. See `exchange` for what is left behind, and what is raised."""
        try:
            if self._rest:
                self._push(self._rest)
            reply = self._reader.feed(self.sock.recv(_RECEIVE_BYTES, socket.MSG_DONTWAIT), cap)
        except BlockingIOError:
            return None
        except (OSError, DispatchError) as error:
            self.close()
            raise _explained(destination, self.host, _WAITING, error) from error
        if reply is not None:
            self._end(self._whole and not self._rest)
        return reply

    def late(self, destination: str, timeout: float, step: str = _WAITING) -> DeadlineError:
        """The error of an exchange that took too long; its connection is of no use any more."""
        if step is _WAITING and self._reader.received:
            step = "receiving its answer"
        return DeadlineError(f"{destination} took longer than {timeout:g} s: given up while {step}")

    def is_fresh(self) -> bool:
        """Whether this idle connection can be used again, as far as one can see from here."""
        return self.sock is not None and not self._is_stale(monotonic())

    def _push(self, data: bytes | memoryview) -> None:
        try:
            sent = self.sock.send(data, socket.MSG_DONTWAIT)
        except BlockingIOError:
            sent = 0
        except (BrokenPipeError, ConnectionResetError):
            self._whole, sent = False, len(data)
        self._rest = memoryview(data)[sent:] if sent < len(data) else _NOTHING

    def _end(self, whole: bool) -> None:
        """The answer is complete: this connection stays open only if it is fit for another exchange."""
        if whole and self._reader.reusable:
            self.idle_since = monotonic()
        else:
            self.close()

    def _is_stale(self, now: float) -> bool:
        """Whether an idle connection is of no use any more.

        Readable while idle means that the other side has closed, or said something unasked. What this cannot see is a
        close still on its way: then the exchange ends without a byte of an answer, and nobody knows whether the event
        was taken. It is not sent again here: a POST must not be repeated on a guess (RFC 9110, section 9.2.2). The
        delivery layer decides, and counts a retry.
        """
        return now - self.idle_since > IDLE_LIMIT or bool(self._poll.poll(0))

    def _reopen(self) -> None:
        self.close()
        self.connect()
        self._poll = select.poll()
        self._poll.register(self.sock, select.POLLIN)
        self._reader = ReplyReader()
        self._trusted = 0.0
        self._arm(self._left())

    def _new_conn(self) -> socket.socket:
        """Called by urllib3's `connect`. Tries each address; what is left of the time is shared by those left."""
        addresses = _resolve(self._dns_host, self.port)
        first_error: OSError | None = None
        for index, (family, address) in enumerate(addresses):
            sock = socket.socket(family, socket.SOCK_STREAM)
            try:
                for option in self.socket_options or ():
                    sock.setsockopt(*option)
                sock.settimeout(self._left() / (len(addresses) - index))
                sock.connect(address)
                sock.settimeout(self._left())  # for the TLS handshake
                return sock
            except OSError as error:
                sock.close()
                if not isinstance(error, TimeoutError):
                    first_error = first_error or error
            except BaseException:
                sock.close()
                raise
        self._left()
        raise first_error or OSError("its name has no address that answers")

    def _left(self) -> float:
        """Seconds up to the deadline.

        Raises:
            TimeoutError: it has passed.
        """
        left = self._deadline - monotonic()
        if left <= 0:
            raise TimeoutError
        return max(left, _SHORTEST_WAIT)

    def _arm(self, seconds: float) -> None:
        """Let no single send or receive block for longer.

        The kernel's own time-outs on a blocking socket: Python's `settimeout` would poll before every operation.
        """
        wait = max(seconds, _SHORTEST_WAIT)
        value = struct.pack("ll", int(wait), int(wait % 1 * 1_000_000))
        self.sock.settimeout(None)
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, value)
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, value)
        self._armed = seconds

    def _rearm(self) -> None:
        left = self._left()
        if self._armed - left > _DEADLINE_SLACK:
            self._arm(left)

    def _send(self, prefix: bytes, event: Encoded) -> bool:
        """Send the request. False if the other side stopped listening: it may have answered before it did."""
        payload = event.payload
        try:
            if len(payload) <= JOIN_LIMIT:
                request = prefix + event.head + payload
                sent = self.sock.send(request)
                if sent != len(request):
                    self._send_rest(request, sent)
            else:
                self._send_rest(prefix + event.head, 0)
                self._send_rest(payload, 0)
        except (BrokenPipeError, ConnectionResetError):
            return False
        return True

    def _send_rest(self, data: bytes, sent: int) -> None:
        view = memoryview(data)[sent:]
        while view:
            self._rearm()
            view = view[self.sock.send(view) :]


class SecureConnection(PlainConnection, HTTPSConnection):
    """The same over TLS; urllib3 makes the handshake and checks the certificate."""

    def _arm(self, seconds: float) -> None:
        # Python's TLS layer ignores the kernel's time-outs on a blocking socket, and would wait for ever.
        self.sock.settimeout(seconds)
        self._armed = seconds


def _resolve(host: str, port: int) -> list[tuple[int, tuple[Any, ...]]]:
    if is_localhost(host):
        # Ours to know (RFC 6761, section 6.3): the system's resolver need not know names below localhost.
        return [(socket.AF_INET, ("127.0.0.1", port)), (socket.AF_INET6, ("::1", port))]
    return [(family, address) for family, *_, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]


def _explained(destination: str, host: str, step: str, error: Exception) -> DispatchError:
    if isinstance(error, DispatchError):
        return DispatchError(f"{destination} {error}")
    if isinstance(error, socket.gaierror):
        return DestinationError(f"{destination} cannot be reached: the name {host} does not resolve ({error.strerror})")
    if isinstance(error, ssl.SSLCertVerificationError):
        return DispatchError(
            f"{destination} has a certificate that is not trusted: {error.verify_message};"
            " its authority must be in the system's trust store, or in the file that SSL_CERT_FILE names"
        )
    if isinstance(error, ssl.SSLError):
        return DispatchError(f"{destination} failed in TLS while {step}: {error.reason or error}")
    reason = error.strerror if isinstance(error, OSError) else None
    return DispatchError(f"{destination} failed while {step}: {reason or error}")
