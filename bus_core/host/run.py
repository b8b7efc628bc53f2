"""Host, run: serves a bus, with worker processes or in this process."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass

from bus_core import telemetry
from bus_core.data_plane.server import Limits, bind, serve, serve_workers
from bus_core.host.host import Host
from bus_core.host.metrics_folder import metrics_folder
from bus_core.host.run_config import RunConfig
from bus_core.host.shutdown import GRACE
from bus_core.model.addresses import format_address
from bus_core.model.resources import DISPATCHER
from bus_core.settings.settings import Settings


def run_bus(config: RunConfig, announce: Callable[[str, str], None]) -> int:
    """Serve a bus with worker processes until SIGTERM or SIGINT. Returns the exit code.

    Args:
        config: the run config.
        announce: called with the addresses for events (empty in a provisioner) and for admin, once both are bound.

    Raises:
        ConfigurationError: an address cannot be used.
    """
    settings = config.settings
    with contextlib.ExitStack() as stack:
        sockets = _bind(config, stack)
        telemetry.enable(stack.enter_context(metrics_folder()))
        announce(sockets.shown_events, sockets.shown_admin)
        return serve_workers(
            lambda: Host(config, sockets.events, sockets.admin),
            sockets.listeners,
            workers=settings.workers,
            limits=_limits(settings),
            on_worker_exit=telemetry.worker_died,
        )


def serve_bus(config: RunConfig, stop: threading.Event, started: Callable[[Host, str, str], None]) -> None:
    """Serve a bus in this process, on this thread, until `stop` is set. For the demo and tests.

    Args:
        config: the run config.
        stop: ends serving when set.
        started: called with the host and the addresses for events and for admin, before serving starts.

    Raises:
        ConfigurationError: an address cannot be used.
    """
    with contextlib.ExitStack() as stack:
        sockets = _bind(config, stack)
        host = Host(config, sockets.events, sockets.admin)
        started(host, sockets.shown_events, sockets.shown_admin)
        serve(host, sockets.listeners, stop, limits=_limits(config.settings))


@dataclass(frozen=True, slots=True)
class _Sockets:
    """The listening sockets of a bus, and their addresses. A provisioner has no socket for events."""

    admin_listener: socket.socket
    events_listener: socket.socket | None

    @property
    def listeners(self) -> list[socket.socket]:
        return [self.admin_listener] if self.events_listener is None else [self.admin_listener, self.events_listener]

    @property
    def admin(self) -> tuple[str, int]:
        return _address(self.admin_listener)

    @property
    def events(self) -> tuple[str, int]:
        return ("", 0) if self.events_listener is None else _address(self.events_listener)

    @property
    def shown_admin(self) -> str:
        return format_address(self.admin)

    @property
    def shown_events(self) -> str:
        return "" if self.events_listener is None else format_address(self.events)


def _bind(config: RunConfig, stack: contextlib.ExitStack) -> _Sockets:
    admin = stack.enter_context(bind(config.settings.admin_bind))
    receives = DISPATCHER in config.roles
    return _Sockets(admin, stack.enter_context(bind(config.settings.bind)) if receives else None)


def _address(listener: socket.socket) -> tuple[str, int]:
    host, port = listener.getsockname()[:2]
    return host, port


def _limits(settings: Settings) -> Limits:
    return Limits(max_connections=settings.max_connections, graceful_timeout=settings.drain_timeout + GRACE)
