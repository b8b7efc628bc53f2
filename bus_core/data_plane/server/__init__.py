"""Server: HTTP/1.1 for ASGI applications, in worker processes or on a thread. It knows no bus.

The way of a request: `serving.Server` accepts → `connection.Connection` → `request.RequestReader` (on `head`, `target`)
→ `exchange.Exchange` runs the application → `response` makes the answer's bytes. `registry.Registry` holds the limits.
This package is the only importer of gunicorn, whose master `arbiter` and `worker` use.
"""

from __future__ import annotations

from bus_core.data_plane.server.arbiter import serve_workers
from bus_core.data_plane.server.service import ASGIApp, Connections, Limits, Receive, Scope, Send, Service
from bus_core.data_plane.server.sockets import bind
from bus_core.data_plane.server.thread import serve

__all__ = [
    "ASGIApp",
    "Connections",
    "Limits",
    "Receive",
    "Scope",
    "Send",
    "Service",
    "bind",
    "serve",
    "serve_workers",
]
