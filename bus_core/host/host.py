"""One bus, put together: driver, monitor, delivery and receiver. The only place where the two streams meet.

Events go server → receiver → driver → delivery → dispatch; resources go source → monitor → driver. `Host` is what one
worker runs.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from bus_core import telemetry
from bus_core.admin import AdminApp
from bus_core.control_plane.monitor import Availability, Monitor
from bus_core.data_plane.delivery import Delivery, LaneLimits, Target
from bus_core.data_plane.dispatch import MessageDispatcher
from bus_core.data_plane.receiver.receiver import MessageReceiver
from bus_core.data_plane.server import ASGIApp, Connections, Limits, bind, serve, serve_workers
from bus_core.driver.hookspecs import DriverContext
from bus_core.driver.loader import DriverHooks
from bus_core.host.run_config import FromFolder, Plan
from bus_core.model.errors import PermanentError, TemporaryError, UnknownChannelError
from bus_core.model.headers import ForwardedHeaders
from bus_core.model.message import Message
from bus_core.model.parameters import ResolvedParameters
from bus_core.model.references import CHANNEL_SERVICE_SUFFIX, ChannelReference, SubscriptionReference
from bus_core.model.resources import DISPATCHER, AnyBus, Channel, Subscription, effective_delivery
from bus_core.settings.settings import Settings

THREADINESS = 4
"""How many channels a worker reconciles at once."""

GRACE = 10.0
"""How many seconds the server waits beyond the drain before it kills a worker."""

log = telemetry.get_logger(__name__)


class _HostHooks:
    """The driver's hooks with the lanes opened before `subscribe` and closed after `unsubscribe`."""

    def __init__(self, driver: DriverHooks, delivery: Delivery) -> None:
        self._driver = driver
        self._delivery = delivery
        self._open: set[str] = set()
        self.declared = driver.declared
        self.provision = driver.provision
        self.unprovision = driver.unprovision

    def sync_bus(self, bus: AnyBus) -> None:
        if bus.spec.driver not in ("", self._driver.name):
            raise PermanentError(
                f"the bus names the driver {bus.spec.driver!r} and this host runs {self._driver.name!r}: "
                "start it without --driver, or with the same"
            )
        self._driver.sync_bus(bus)

    def subscribe(
        self,
        channel: Channel,
        subscription: Subscription,
        parameters: ResolvedParameters,
        channel_parameters: ResolvedParameters,
    ) -> None:
        spec = subscription.spec
        delivery = effective_delivery(subscription, channel)
        target = Target(channel.reference, subscription.reference, spec.subscriber, spec.reply_to, delivery)
        self._delivery.open(target)
        try:
            self._driver.subscribe(channel, subscription, parameters, channel_parameters)
        except BaseException:
            if subscription.uid not in self._open:  # one that worked before goes on as it was
                self._delivery.close(subscription.reference)
            raise
        self._open.add(subscription.uid)

    def unsubscribe(self, channel: Channel, subscription: Subscription) -> None:
        self._driver.unsubscribe(channel, subscription)
        self._open.discard(subscription.uid)
        self._delivery.close(subscription.reference)


class Host:
    """One worker's share of a bus: a `Service` for `bus_core.data_plane.server`.

    Args:
        what: the plan.
        events: the address that events are received on.
        admin: the address of the admin port.
    """

    def __init__(self, what: Plan, events: tuple[str, int], admin: tuple[str, int]) -> None:
        settings = what.settings
        self._plan = what
        self._events = events
        self._stopping = False
        self._stop_monitor = threading.Event()
        self._stop_driver = threading.Event()
        self._exit_stack = contextlib.ExitStack()
        forwarded = ForwardedHeaders(name for name in settings.forward_headers.split(",") if name.strip())
        self._dispatcher = MessageDispatcher(forwarded=forwarded, local=self._local)
        limits = LaneLimits(settings.lane_events, settings.lane_bytes, settings.lane_in_flight, settings.stall_after)
        self.delivery = Delivery(self._dispatcher, limits=limits, report=self._subscriber_report)
        context = DriverContext(
            bus=what.bus,
            settings=what.driver_settings,
            logger=telemetry.get_logger(f"bus_core.driver.{what.driver.name}").bind(bus=str(what.bus)),
            exit_stack=self._exit_stack,
            stopping=self._stop_driver,
            publish=self.delivery.publish,
            submit=self.delivery.submit,
            report=self._report,
            forwarded=forwarded,
        )
        self._driver = what.driver.construct(context)
        self.monitor = Monitor(
            "bus-core",
            handler=_HostHooks(self._driver, self.delivery),
            source=what.source(),
            leadership=what.leadership(),
            roles=what.roles,
            deletion_grace=settings.deletion_grace,
        )
        self._monitor_thread = threading.Thread(
            target=self.monitor.run,
            args=(what.bus.namespace, what.bus.name, THREADINESS, self._stop_monitor),
            name="monitor",
            daemon=True,
        )
        self._receiver = MessageReceiver(
            self._receive_async if self._driver.receive_is_async else self._receive,
            max_body_bytes=settings.max_body,
            forwarded=forwarded,
        )
        self._admin = admin
        self._admin_app = AdminApp(ready=self.problems, metrics=telemetry.exposition)

    def app_at(self, address: tuple[str, int]) -> ASGIApp:
        """The admin pages for the admin socket, the receiver for the other one."""
        app: ASGIApp = self._admin_app.asgi if address == self._admin else self._receiver.asgi
        return app

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Start watching. Returns at once; until resources are read, events are answered 503."""
        self.delivery.attach(loop)
        self._monitor_thread.start()

    def problems(self) -> list[str]:
        """Why this worker is not ready; empty when it is."""
        if self._stopping:
            return ["the bus is stopping"]
        if not self._monitor_thread.is_alive():
            return ["the monitor has ended"]
        return self.monitor.problems()

    async def stop(self, connections: Connections) -> None:
        """Shut down in the order that loses nothing: refuse, finish what was begun, drain, then let go."""
        began = time.monotonic()
        self._stopping = True
        self._receiver.refuse("the bus is stopping")
        connections.close_idle()
        self._stop_driver.set()
        await self._receiver.drained()
        waiting = sum(self.delivery.depths().values())
        log.info("stopping", undelivered=waiting, seconds_at_most=self._plan.settings.drain_timeout)
        left = await asyncio.to_thread(self._drain)
        log.info("stopped", seconds=round(time.monotonic() - began, 3), given_up=left)

    def _drain(self) -> int:
        self._stop_monitor.set()
        self._monitor_thread.join()
        left = self.delivery.drain(self._plan.settings.drain_timeout)
        try:
            self._exit_stack.close()
        except Exception:
            log.exception("the driver did not close cleanly", driver=self._driver.name)
        self._dispatcher.close()
        return left

    def _report(self, subscription: SubscriptionReference, reason: str = "", message: str = "") -> None:
        self.monitor.report(subscription, reason, message)

    def _subscriber_report(self, subscription: SubscriptionReference, reason: str, message: str) -> None:
        self.monitor.report(subscription, reason, message, reporter="delivery")

    def _receive(self, channel: ChannelReference, message: Message) -> Awaitable[None] | None:
        return self._driver.receive(channel, message, self._admit(channel))

    async def _receive_async(self, channel: ChannelReference, message: Message) -> None:
        accepted: Awaitable[None] | None = self._driver.receive(channel, message, self._admit(channel))
        if accepted is not None:
            await accepted

    def _admit(self, channel: ChannelReference) -> ResolvedParameters:
        """The parameters of a channel that can take events."""
        view = self.monitor.lookup(channel)
        if view.availability is Availability.READY:
            return view.parameters
        if view.availability is Availability.ABSENT:
            raise UnknownChannelError(f"there is no channel {channel} on the bus {self._plan.bus}")
        raise TemporaryError(f"{channel}: {view.availability.value}")

    def _local(self, name: str, namespace: str) -> tuple[str, str] | None:
        """Where a single-label destination leads that is a channel of this bus, or its Service: to our own receiver."""
        channel = ChannelReference(name.removesuffix(CHANNEL_SERVICE_SUFFIX), namespace)
        if channel.name == name and not isinstance(self._plan.origin, FromFolder):
            return None  # in a cluster a name is a Service's, and a channel's Service is NAME-channel
        if self.monitor.lookup(channel).availability not in (Availability.READY, Availability.UNPROVISIONED):
            return None
        host, port = self._events
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
        return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/", f"{channel.name}.{namespace}"


def run_bus(what: Plan, announce: Callable[[str, str], None]) -> int:
    """Serve a bus with worker processes until SIGTERM or SIGINT; the exit code.

    Args:
        what: the plan.
        announce: told the addresses for events (empty in a provisioner) and for admin, once both are bound.

    Raises:
        ConfigurationError: an address cannot be used.
    """
    settings = what.settings
    with contextlib.ExitStack() as stack:
        sockets, events, admin = _bind(what, stack)
        metrics = Path(tempfile.mkdtemp(prefix="bus-metrics-"))
        stack.callback(shutil.rmtree, metrics, ignore_errors=True)
        telemetry.enable(metrics)
        announce("" if DISPATCHER not in what.roles else _shown(events), _shown(admin))
        return serve_workers(
            lambda: Host(what, events, admin),
            sockets,
            workers=settings.workers,
            limits=_limits(settings),
            on_worker_exit=telemetry.worker_died,
        )


def serve_bus(what: Plan, stop: threading.Event, started: Callable[[Host, str, str], None]) -> None:
    """Serve a bus in this process, on this thread, until `stop` is set: for a demo, and for tests."""
    with contextlib.ExitStack() as stack:
        sockets, events, admin = _bind(what, stack)
        host = Host(what, events, admin)
        started(host, _shown(events), _shown(admin))
        serve(host, sockets, stop, limits=_limits(what.settings))


def _bind(what: Plan, stack: contextlib.ExitStack) -> tuple[list[socket.socket], tuple[str, int], tuple[str, int]]:
    admin = stack.enter_context(bind(what.settings.admin_bind))
    sockets = [admin]
    events = ("", 0)
    if DISPATCHER in what.roles:
        sockets.append(stack.enter_context(bind(what.settings.bind)))
        events = sockets[-1].getsockname()[:2]
    return sockets, events, admin.getsockname()[:2]


def _limits(settings: Settings) -> Limits:
    return Limits(max_connections=settings.max_connections, graceful_timeout=settings.drain_timeout + GRACE)


def _shown(address: tuple[str, int]) -> str:
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
