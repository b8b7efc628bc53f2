"""One bus, put together: driver, monitor, delivery and receiver. The only place where the two streams meet.

Events go server → receiver → driver → delivery → dispatch; resources go source → monitor → driver. `Plan` is what is
decided and checked before the workers are forked, `Host` is what one worker runs.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bus_core import telemetry
from bus_core.admin import AdminApp
from bus_core.delivery import Delivery, LaneLimits, Target
from bus_core.dispatch import MessageDispatcher
from bus_core.drivers import DriverClass, DriverHooks, installed_drivers, load_driver
from bus_core.errors import ConfigurationError, TemporaryError, UnknownChannelError
from bus_core.hookspecs import DriverContext
from bus_core.leadership.file_lock import FileLock
from bus_core.message import ForwardedHeaders, Message
from bus_core.monitor import Availability, Monitor
from bus_core.parameters import ResolvedParameters
from bus_core.receiver import MessageReceiver
from bus_core.references import BusReference, ChannelReference, SubscriptionReference
from bus_core.resources import (
    DISPATCHER,
    PROVISIONER,
    AnyBus,
    Bus,
    Channel,
    ClusterBus,
    Role,
    Subscription,
    effective_delivery,
    from_object,
)
from bus_core.server import Connections, Limits, bind, by_port, serve, serve_workers
from bus_core.settings import Settings, load_driver_settings
from bus_core.sources.document import Folder, read_folder
from bus_core.sources.manifests import ManifestSource, bus_object
from bus_core.sources.state import StateDirectory, default_state_dir

THREADINESS = 4
"""How many channels a worker reconciles at once."""

GRACE = 10.0
"""How many seconds the server waits beyond the drain before it kills a worker."""

log = telemetry.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything about a run that is known before it starts: made and checked once, shared by all workers."""

    settings: Settings
    folder: Path
    state_dir: Path
    bus: BusReference
    driver: DriverClass
    driver_settings: Any
    roles: tuple[Role, ...]
    extra: Sequence[Mapping[str, Any]] = field(default_factory=tuple)


def plan(settings: Settings, driver_settings: Mapping[str, Mapping[str, str]] | None = None) -> Plan:
    """Decide which bus is served by which driver, and check both.

    Args:
        settings: of the host.
        driver_settings: what `--set DRIVER.FIELD=VALUE` gave, by driver and field.

    Raises:
        ConfigurationError: something is missing, contradictory or refused; the text names the cure.
    """
    if settings.manifests is None:
        raise ConfigurationError("where are the manifests? give a folder with --manifests DIR")
    folder = read_folder(settings.manifests)
    if not folder.exists:
        raise ConfigurationError(f"--manifests {settings.manifests} is no folder")
    reference = _which_bus(settings, folder)
    found = _find_bus(folder, reference)
    name = _which_driver(settings, reference, found, folder)
    given = dict(driver_settings or {})
    driver = load_driver(name)
    loaded = load_driver_settings(driver.settings, name, given.pop(name, {}), settings)
    if given:
        other = ", ".join(sorted(given))
        raise ConfigurationError(f"--set names the driver {other}, but the bus {reference} runs on {name}")
    roles: dict[str, tuple[Role, ...]] = {
        "all": (PROVISIONER, DISPATCHER),
        "provisioner": (PROVISIONER,),
        "dispatcher": (DISPATCHER,),
    }
    state_dir = settings.state_dir or default_state_dir(settings.manifests, reference)
    StateDirectory(state_dir, settings.manifests)  # to hear now, and once, if it cannot be used
    return Plan(
        settings=settings,
        folder=settings.manifests,
        state_dir=state_dir,
        bus=reference,
        driver=driver,
        driver_settings=loaded,
        roles=roles[settings.role],
        extra=() if found else (bus_object(reference, name),),
    )


def _which_bus(settings: Settings, folder: Folder) -> BusReference:
    if settings.bus_name:
        return BusReference.parse(settings.bus_name)
    buses = [bus for document in folder.documents if isinstance(bus := from_object(document.data), Bus | ClusterBus)]
    if len(buses) == 1:
        return buses[0].reference
    known = ", ".join(str(bus.reference) for bus in buses) or "none"
    raise ConfigurationError(f"which bus? give --bus [NAMESPACE/]NAME (in {folder.path}: {known})")


def _find_bus(folder: Folder, reference: BusReference) -> AnyBus | None:
    for document in folder.documents:
        resource = from_object(document.data)
        if isinstance(resource, Bus | ClusterBus) and resource.reference == reference:
            return resource
    return None


def _which_driver(settings: Settings, reference: BusReference, found: AnyBus | None, folder: Folder) -> str:
    said = found.spec.driver if found else ""
    if said and settings.driver and said != settings.driver:
        raise ConfigurationError(
            f"the bus {reference} says driver {said!r}, the command line says {settings.driver!r}; drop one of the two"
        )
    if said or settings.driver:
        return said or settings.driver
    if found is None:
        problem = f"; {folder.errors[0]}" if folder.errors else ""
        hint = (
            ""
            if reference.namespace
            else f" (a bus without a namespace is a ClusterBus; did you mean default/{reference}?)"
        )
        raise ConfigurationError(
            f"there is no bus {reference} in {folder.path}{hint}; "
            f"add it, or give --driver to make one in memory{problem}"
        )
    names = ", ".join(driver.name for driver in installed_drivers()) or "none"
    raise ConfigurationError(
        f"the bus {reference} names no driver: set spec.driver, or give --driver NAME (installed: {names})"
    )


class _HostHooks:
    """The driver's hooks with the lanes opened before `subscribe` and closed after `unsubscribe`."""

    def __init__(self, driver: DriverHooks, delivery: Delivery) -> None:
        self._driver = driver
        self._delivery = delivery
        self._open: set[str] = set()
        self.declared = driver.declared
        self.sync_bus = driver.sync_bus
        self.provision = driver.provision
        self.unprovision = driver.unprovision

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
    """One worker's share of a bus: a `Service` for `bus_core.server`.

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
        self.delivery = Delivery(self._dispatcher, limits=limits)
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
        self._leadership = FileLock(what.state_dir / "leadership")
        self.monitor = Monitor(
            "bus-core",
            handler=_HostHooks(self._driver, self.delivery),
            source=ManifestSource(
                what.folder,
                what.bus,
                state_dir=what.state_dir,
                allow_empty=settings.allow_empty,
                extra=what.extra,
            ),
            leadership=self._leadership,
            roles=what.roles,
            deletion_grace=settings.deletion_grace,
            release_leadership=False,
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
        admin_app = AdminApp(ready=self.problems, metrics=telemetry.exposition)
        apps = {admin[1]: admin_app.asgi}
        if DISPATCHER in what.roles:
            apps[events[1]] = self._receiver.asgi
        self.asgi = by_port(apps)

    def start(self) -> None:
        """Start watching. Returns at once; until resources are read, events are answered 503."""
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
        self._leadership.release()
        self._dispatcher.close()
        return left

    def _report(self, subscription: SubscriptionReference, reason: str = "", message: str = "") -> None:
        self.monitor.report(subscription, reason, message)

    def _receive(self, channel: ChannelReference, message: Message) -> None:
        self._driver.receive(channel, message, self._admit(channel))

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
        """Where a single-label destination leads that is a channel of this bus: to our own receiver."""
        channel = ChannelReference(name, namespace)
        if self.monitor.lookup(channel).availability not in (Availability.READY, Availability.UNPROVISIONED):
            return None
        host, port = self._events
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
        return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/", f"{name}.{namespace}"


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
