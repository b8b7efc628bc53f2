"""What a run will be: which bus, on which driver, with resources from where. Decided and checked before it starts."""

from __future__ import annotations

import signal
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from bus_core import telemetry
from bus_core.control_plane.cluster import ApiError, ClusterClient
from bus_core.control_plane.cluster.access import TOKEN, connect, in_cluster
from bus_core.control_plane.cluster.reflector import BACKOFF
from bus_core.control_plane.crds.validation import DNS_LABEL
from bus_core.control_plane.leadership import Leadership
from bus_core.control_plane.leadership.file_lock import FileLock
from bus_core.control_plane.leadership.lease import LeaseLock
from bus_core.control_plane.sources import Source
from bus_core.control_plane.sources.folder.manifests import Folder, read_folder
from bus_core.control_plane.sources.folder.source import ManifestSource, bus_object
from bus_core.control_plane.sources.folder.state import StateDirectory, default_state_dir
from bus_core.control_plane.sources.kubernetes import KubernetesSource, ServiceName, read_bus
from bus_core.driver.loader import DriverClass, driver_names, installed_drivers, load_driver
from bus_core.model.errors import ConfigurationError
from bus_core.model.references import BusReference
from bus_core.model.resources import DISPATCHER, PROVISIONER, AnyBus, Role
from bus_core.settings.settings import Settings, driver_sections, load_driver_settings

log = telemetry.get_logger(__name__)

ROLES: dict[str, tuple[Role, ...]] = {
    "all": (PROVISIONER, DISPATCHER),
    "provisioner": (PROVISIONER,),
    "dispatcher": (DISPATCHER,),
}


class StoppedError(Exception):
    """A signal came before there was anything to run."""


@dataclass(frozen=True, slots=True)
class FromFolder:
    """Resources come from a folder of manifests, and the processes of one machine lead by file locks."""

    folder: Path
    state_dir: Path
    allow_empty: bool
    extra: Sequence[Mapping[str, Any]] = ()

    def source(self, bus: BusReference, roles: Sequence[Role]) -> Source:
        return ManifestSource(
            self.folder, bus, state_dir=self.state_dir, allow_empty=self.allow_empty, extra=self.extra
        )

    def leadership(self, bus: BusReference) -> Leadership:
        return FileLock(self.state_dir / "leadership")

    def __str__(self) -> str:
        return f"{self.folder} (state in {self.state_dir})"


@dataclass(frozen=True, slots=True)
class FromCluster:
    """Resources come from an API server, and whoever holds the Lease leads. Each worker connects for itself."""

    master: str
    kubeconfig: str
    service: ServiceName
    namespace: str
    watch_timeout: float
    lease_duration: float

    def source(self, bus: BusReference, roles: Sequence[Role]) -> Source:
        return KubernetesSource(
            self.connect(),
            bus,
            service=self.service,
            provisions=PROVISIONER in roles,
            silence=self.watch_timeout,
        )

    def leadership(self, bus: BusReference) -> Leadership:
        return LeaseLock(self.connect(), self.namespace, duration=self.lease_duration)

    def connect(self) -> ClusterClient:
        return connect(self.master, self.kubeconfig)

    def __str__(self) -> str:
        return self.master or self.kubeconfig or "the cluster of this pod"


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything about a run that is known before it starts: made and checked once, shared by all workers."""

    settings: Settings
    bus: BusReference
    driver: DriverClass
    driver_settings: Any
    origin: FromFolder | FromCluster
    roles: tuple[Role, ...] = field(default=ROLES["all"])

    def source(self) -> Source:
        return self.origin.source(self.bus, self.roles)

    def leadership(self) -> Leadership:
        return self.origin.leadership(self.bus)


def plan(settings: Settings, driver_settings: Mapping[str, Mapping[str, str]] | None = None) -> Plan:
    """Decide which bus is served by which driver, and check both.

    Where only the Bus in a cluster says which driver it is, this waits for the cluster and the Bus.

    Args:
        settings: of the host.
        driver_settings: what `--set DRIVER.FIELD=VALUE` gave, by driver and field.

    Raises:
        ConfigurationError: something is missing, contradictory or refused; the text names the cure.
        StoppedError: SIGTERM or SIGINT came while waiting.
    """
    if DISPATCHER in ROLES[settings.role]:
        _check_addresses(settings)
    if settings.manifests is not None:
        if settings.kubeconfig or settings.master:
            raise ConfigurationError("--manifests and --kubeconfig or --master name two sources; give one")
        return _from_folder(settings, settings.manifests, driver_settings or {})
    if not (settings.kubeconfig or settings.master or in_cluster()):
        raise ConfigurationError(
            "where are the resources? give a folder with --manifests DIR, or a cluster with --kubeconfig FILE"
        )
    return _from_cluster(settings, driver_settings or {})


def _check_addresses(settings: Settings) -> None:
    """Two addresses of our own that are one: the system would say that another program has it."""
    (host, _, port), (admin, _, admin_port) = (text.rpartition(":") for text in (settings.bind, settings.admin_bind))
    one_family = (":" in host) == (":" in admin)
    same = host == admin or (one_family and not {host, admin}.isdisjoint({"0.0.0.0", "[::]"}))
    if port == admin_port and port.strip("0").isdigit() and same:
        first, second = settings.origin("bind"), settings.origin("admin_bind")
        raise ConfigurationError(
            f"{first} {settings.bind} and {second} {settings.admin_bind} name one address: give each a port of its own"
        )


def _from_folder(settings: Settings, path: Path, given: Mapping[str, Mapping[str, str]]) -> Plan:
    folder = read_folder(path)
    if not folder.exists:
        raise ConfigurationError(f"--manifests {path} is no folder")
    reference = _which_bus(settings, folder)
    found = _find_bus(folder, reference)
    name = _which_driver(settings, reference, found, folder)
    driver, loaded = _load(settings, reference, name, given)
    if found is None:
        _say_made(folder, reference)
    state_dir = settings.state_dir or default_state_dir(path, reference)
    StateDirectory(state_dir, path)  # to hear now, and once, if it cannot be used
    origin = FromFolder(path, state_dir, settings.allow_empty, () if found else (bus_object(reference, name),))
    return Plan(settings, reference, driver, loaded, origin, ROLES[settings.role])


def _from_cluster(settings: Settings, given: Mapping[str, Mapping[str, str]]) -> Plan:
    if settings.master and not _is_address(settings.master):
        raise ConfigurationError(
            f"{settings.origin('master')} {settings.master} is no address of an API server: write https://HOST:PORT"
        )
    if not settings.bus_name:
        raise ConfigurationError("which bus? give --bus [NAMESPACE/]NAME, or set BUS_NAMESPACE and BUS_NAME")
    reference = _parse(settings.bus_name)
    own = reference.namespace or _pod_namespace()
    namespace, _, service = settings.service.rpartition("/")
    origin = FromCluster(
        settings.master,
        str(settings.kubeconfig or ""),
        ServiceName(service or f"{reference.name}-bus", namespace or own),
        own,
        settings.watch_timeout,
        settings.lease_duration,
    )
    client = origin.connect()  # to hear now, and once, if it cannot be used
    name = settings.driver or _driver_in_cluster(client, reference)
    driver, loaded = _load(settings, reference, name, given)
    return Plan(settings, reference, driver, loaded, origin, ROLES[settings.role])


def _is_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # from a port that is no number, or half a bracket
        return False


def _driver_in_cluster(client: ClusterClient, reference: BusReference) -> str:
    """The driver that the Bus names; waits for both the API server and the Bus, and says so."""
    stop = threading.Event()
    before = {number: signal.signal(number, lambda *_: stop.set()) for number in (signal.SIGTERM, signal.SIGINT)}
    said = ""
    try:
        for delay in [*BACKOFF, *[BACKOFF[-1]] * 10**6]:
            try:
                bus = read_bus(client, reference)
            except ApiError as error:
                text = str(error)
            else:
                if bus is not None:
                    return _named_driver(bus, reference)
                text = f"there is no bus {reference}"
            if text != said:
                log.warning("waiting for the bus, which names the driver; --driver would not wait", detail=text)
            said = text
            if stop.wait(delay):
                break
        raise StoppedError
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _named_driver(bus: Any, reference: BusReference) -> str:
    if bus.spec.driver:
        return str(bus.spec.driver)
    names = ", ".join(driver.name for driver in installed_drivers()) or "none"
    raise ConfigurationError(
        f"the bus {reference} names no driver: set spec.driver, or give --driver NAME (installed: {names})"
    )


def _pod_namespace() -> str:
    """Where this process runs: a ClusterBus has no namespace of its own."""
    path = TOKEN.with_name("namespace")
    return path.read_text().strip() if path.exists() else "default"


def _load(
    settings: Settings, reference: BusReference, name: str, given: Mapping[str, Mapping[str, str]]
) -> tuple[DriverClass, Any]:
    others = {driver: values for driver, values in given.items() if driver != name}
    driver = load_driver(name)
    loaded = load_driver_settings(driver.settings, name, given.get(name, {}), settings)
    installed = driver_names()
    for section, place in driver_sections(settings).items():
        if section not in installed:
            raise ConfigurationError(
                f"{place}: there is no such setting, and no such driver is installed "
                f"(installed: {', '.join(installed)})"
            )
    if others:
        raise ConfigurationError(
            f"--set names the driver {', '.join(sorted(others))}, but the bus {reference} runs on {name}"
        )
    return driver, loaded


def _parse(text: str) -> BusReference:
    reference = BusReference.parse(text)
    if not all(len(name) <= 63 and DNS_LABEL.fullmatch(name) for name in text.split("/")):
        raise ConfigurationError(
            f"{text!r} names no bus: names are DNS labels of at most 63 characters, a-z, 0-9 and '-' (RFC 1123)"
        )
    return reference


def _which_bus(settings: Settings, folder: Folder) -> BusReference:
    if settings.bus_name:
        return _parse(settings.bus_name)
    buses = folder.buses
    if len(buses) == 1:
        return buses[0].reference
    if folder.errors:  # the bus may stand in the file that is broken
        raise ConfigurationError(f"which bus? {_mistakes(folder)}, or give --bus [NAMESPACE/]NAME")
    known = ", ".join(str(bus.reference) for bus in buses) or "none"
    raise ConfigurationError(f"which bus? give --bus [NAMESPACE/]NAME (in {folder.path}: {known})")


def _mistakes(folder: Folder) -> str:
    """The first mistake of a folder that has some, and where to see the others."""
    return f"{folder.errors[0]}; correct it (bus validate {folder.path} shows every mistake)"


def _find_bus(folder: Folder, reference: BusReference) -> AnyBus | None:
    return next((bus for bus in folder.buses if bus.reference == reference), None)


def _say_made(folder: Folder, reference: BusReference) -> None:
    """A bus in memory is what was asked for where channels name it; elsewhere its name may be mistyped."""
    buses = [str(bus.reference) for bus in folder.buses]
    named = folder.names_bus(reference)
    there = f"there is {', '.join(buses) or 'none'}" + ("" if named else ", and no channel names it")
    say = log.info if named and not buses else log.warning
    kind = "Bus" if reference.namespace else "ClusterBus"
    say(f"there is no {kind} {reference} in {folder.path} ({there}); one is made in memory")


def _which_driver(settings: Settings, reference: BusReference, found: AnyBus | None, folder: Folder) -> str:
    said = found.spec.driver if found else ""
    if said and settings.driver and said != settings.driver:
        raise ConfigurationError(
            f"the bus {reference} says driver {said!r}, {settings.origin('driver')} says {settings.driver!r}; "
            "drop one of the two"
        )
    if said or settings.driver:
        return said or settings.driver
    if found is None and folder.errors:
        raise ConfigurationError(
            f"no bus {reference} can be read: {_mistakes(folder)}, or give --driver to make one in memory"
        )
    if found is None:
        hint = (
            ""
            if reference.namespace
            else f" (a bus without a namespace is a ClusterBus; did you mean default/{reference}?)"
        )
        raise ConfigurationError(
            f"there is no bus {reference} in {folder.path}{hint}; add it, or give --driver to make one in memory"
        )
    names = ", ".join(driver.name for driver in installed_drivers()) or "none"
    raise ConfigurationError(
        f"the bus {reference} names no driver: set spec.driver, or give --driver NAME (installed: {names})"
    )
