"""Host: a run whose resources come from the API server of a cluster."""

from __future__ import annotations

import itertools
import signal
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import FrameType
from urllib.parse import urlsplit

from bus_core import telemetry
from bus_core.control_plane.cluster import ApiError, ClusterClient
from bus_core.control_plane.cluster.access import TOKEN, shared_client
from bus_core.control_plane.cluster.reflector import BACKOFF
from bus_core.control_plane.leadership import Leadership
from bus_core.control_plane.leadership.host_lock import HostLock
from bus_core.control_plane.leadership.lease import LeaseLock
from bus_core.control_plane.sources import Source
from bus_core.control_plane.sources.kubernetes import KubernetesSource, ServiceName, read_bus
from bus_core.host.choice import Assignments, Choice, choose_driver, no_driver_named, parse_bus
from bus_core.model.errors import ConfigurationError
from bus_core.model.references import BusReference
from bus_core.model.resources import PROVISIONER, AnyBus, Bus, ClusterBus, Role
from bus_core.settings.settings import Settings

log = telemetry.get_logger(__name__)


class StoppedError(Exception):
    """SIGTERM or SIGINT arrived before the Bus could be read."""


@dataclass(frozen=True, slots=True)
class FromCluster:
    """Resources come from an API server, and the holder of the Lease leads. Each worker has its own connections.

    The workers of this host share `host_lock`, so it is created before the fork.
    """

    master: str
    kubeconfig: str
    service: ServiceName
    namespace: str
    watch_timeout: float
    lease_duration: float
    host_lock: HostLock = field(default_factory=HostLock)

    def source(self, bus: BusReference, roles: Sequence[Role]) -> Source:
        return KubernetesSource(
            self.connect(),
            bus,
            service=self.service,
            provisions=PROVISIONER in roles,
            silence=self.watch_timeout,
        )

    def leadership(self, bus: BusReference) -> Leadership:
        return LeaseLock(self.connect(), self.namespace, duration=self.lease_duration, host=self.host_lock)

    def connect(self) -> ClusterClient:
        return shared_client(self.master, self.kubeconfig)

    def __str__(self) -> str:
        return self.master or self.kubeconfig or "the cluster of this pod"


def choose_from_cluster(settings: Settings, assignments: Assignments) -> tuple[Choice, FromCluster]:
    """Choose bus and driver. If only the Bus names the driver, wait for the API server and the Bus.

    Call it on the main thread: it handles SIGTERM and SIGINT during the wait.

    Raises:
        ConfigurationError: the settings do not name the bus or the driver, or the kubeconfig cannot be used.
        StoppedError: SIGTERM or SIGINT arrived during the wait.
    """
    if settings.master and not _is_address(settings.master):
        raise ConfigurationError(
            f"{settings.origin('master')} {settings.master} is not the address of an API server: write https://HOST:PORT"
        )
    if not settings.bus_name:
        raise ConfigurationError("which bus? give --bus [NAMESPACE/]NAME, or set BUS_NAMESPACE and BUS_NAME")
    reference = parse_bus(settings.bus_name)
    own = reference.namespace or _pod_namespace()
    namespace, _, service = settings.service.rpartition("/")
    origin = FromCluster(
        master=settings.master,
        kubeconfig=str(settings.kubeconfig or ""),
        service=ServiceName(service or f"{reference.name}-bus", namespace or own),
        namespace=own,
        watch_timeout=settings.watch_timeout,
        lease_duration=settings.lease_duration,
    )
    client = origin.connect()  # an error is reported here once, and not by each worker
    name = settings.driver or _driver_in_cluster(client, reference)
    return choose_driver(settings, reference, name, assignments), origin


def _is_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # the port is not a number, or a bracket is missing
        return False


def _pod_namespace() -> str:
    """The namespace of this pod, for a ClusterBus, which has no namespace."""
    path = TOKEN.with_name("namespace")
    return path.read_text().strip() if path.exists() else "default"


def _driver_in_cluster(client: ClusterClient, reference: BusReference) -> str:
    """The driver that the Bus names. Waits until the Bus can be read, and logs the reason."""
    stop = threading.Event()

    def on_signal(number: int, frame: FrameType | None) -> None:
        stop.set()

    before = {number: signal.signal(number, on_signal) for number in (signal.SIGTERM, signal.SIGINT)}
    logged = ""
    try:
        for delay in itertools.chain(BACKOFF, itertools.repeat(BACKOFF[-1])):
            wait = float(delay)
            try:
                bus = read_bus(client, reference)
            except ApiError as error:
                reason = str(error)
                if error.unreachable:
                    wait = error.retry_after  # the circuit breaker's back-off, common to all callers
            else:
                if isinstance(bus, Bus | ClusterBus):
                    return _named_driver(bus)
                reason = f"there is no bus {reference}"
            if reason != logged:
                log.warning(
                    "waiting for the bus, because it names the driver; with --driver there is no wait", detail=reason
                )
            logged = reason
            if stop.wait(wait):
                break
        raise StoppedError
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _named_driver(bus: AnyBus) -> str:
    if not bus.spec.driver:
        raise no_driver_named(bus.reference)
    return bus.spec.driver
