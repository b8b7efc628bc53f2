"""Server: listening sockets, and the limit of open files."""

from __future__ import annotations

import resource
import socket

from bus_core.data_plane.server.service import Limits
from bus_core.model.errors import ConfigurationError
from bus_core.telemetry import get_logger

BACKLOG = 2048
"""Connections that the kernel holds until they are accepted."""

_SPARE_FILES = 256
"""Open files beside the connections: closing connections, deliveries, manifests."""

log = get_logger(__name__)


def bind(address: str) -> socket.socket:
    """A listening socket for `HOST:PORT`; port 0 takes a free one, IPv6 goes in brackets.

    Raises:
        ConfigurationError: the address cannot be read, is in use, or is not this machine's.
    """
    host, colon, port = address.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or int(port) > 65535 or not host:
        raise ConfigurationError(f"{address!r} is no address: write HOST:PORT, for example 127.0.0.1:8080")
    bare = host.removeprefix("[").removesuffix("]")
    try:
        family, kind, protocol, _, sockaddr = socket.getaddrinfo(bare, int(port), type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise ConfigurationError(f"cannot listen on {address}: {error.strerror or error}") from None
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(sockaddr)
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        hint = "stop the other program or choose another port" if "in use" in str(error) else "choose another address"
        raise ConfigurationError(f"cannot listen on {address}: {error.strerror or error}; {hint}") from None
    return listener


def raise_file_limit(limits: Limits) -> None:
    """Allow as many open files as the connections need, and say so where the system does not."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = limits.max_connections + _SPARE_FILES
    if soft < wanted:
        soft = min(wanted, hard) if hard != resource.RLIM_INFINITY else wanted
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if soft < wanted:
        log.warning("the limit of open files is too low for the connections allowed", limit=soft, wanted=wanted)
