"""Dispatch: opens TCP connections within a deadline, and says why an exchange failed."""

from __future__ import annotations

import socket
import ssl
from time import monotonic
from typing import Any

from bus_core.model.destination import is_localhost
from bus_core.model.errors import DestinationError, DispatchError

SHORTEST_WAIT = 0.001
"""Seconds. For the operating system, a time-out of zero means no time-out."""


def time_left(deadline: float) -> float:
    """Seconds up to a moment of the monotonic clock, at least `SHORTEST_WAIT`.

    Raises:
        TimeoutError: the moment has passed.
    """
    left = deadline - monotonic()
    if left <= 0:
        raise TimeoutError
    return max(left, SHORTEST_WAIT)


def connect(host: str, port: int, deadline: float) -> socket.socket:
    """A connected TCP socket. Tries each address in turn. The untried addresses share the remaining time.

    Raises:
        TimeoutError: the deadline has passed.
        OSError: the name does not resolve (`socket.gaierror`), or no address accepts the connection.
    """
    addresses = _resolve(host, port)
    first_error: OSError | None = None
    for index, (family, address) in enumerate(addresses):
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.settimeout(time_left(deadline) / (len(addresses) - index))
            sock.connect(address)
            sock.settimeout(time_left(deadline))  # for the TLS handshake
            return sock
        except OSError as error:
            sock.close()
            if not isinstance(error, TimeoutError):
                first_error = first_error or error
        except BaseException:
            sock.close()
            raise
    time_left(deadline)
    raise first_error or OSError("its name has no address that answers")


def _resolve(host: str, port: int) -> list[tuple[int, tuple[Any, ...]]]:
    if is_localhost(host):
        # The system's resolver may not know names below localhost (RFC 6761, section 6.3).
        return [(socket.AF_INET, ("127.0.0.1", port)), (socket.AF_INET6, ("::1", port))]
    return [(family, address) for family, *_, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]


def explained(destination: str, host: str, step: str, error: Exception) -> DispatchError:
    """The error to raise for a failed exchange: one line that names the destination and the reason."""
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
