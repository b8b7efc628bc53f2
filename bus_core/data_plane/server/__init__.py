"""The HTTP server: gunicorn's asgi worker, in processes of its own or on a thread. The only importer of gunicorn.

It knows no bus.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Sequence

from bus_core.data_plane.server.arbiter import serve_workers
from bus_core.data_plane.server.service import ASGIApp, Connections, Limits, Receive, Scope, Send, Service
from bus_core.data_plane.server.sockets import bind, by_port, raise_file_limit
from bus_core.data_plane.server.worker import Log, ThreadWorker, make_config

__all__ = [
    "ASGIApp",
    "Connections",
    "Limits",
    "Receive",
    "Scope",
    "Send",
    "Service",
    "bind",
    "by_port",
    "serve",
    "serve_workers",
]

_LIMITS = Limits()


def serve(service: Service, sockets: Sequence[socket.socket], stop: threading.Event, limits: Limits = _LIMITS) -> None:
    """Serve in this process, on the calling thread, with no signal handlers, until `stop` is set and the service has
    stopped. The sockets stay the caller's to close."""
    raise_file_limit(limits)
    config = make_config(limits)
    worker = ThreadWorker(0, os.getppid(), list(sockets), None, 0, config, Log(config))
    worker.serve_until(service, limits, stop)
