"""Host: the run config: the bus, its driver and the source of its resources, chosen and checked before the start."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from bus_core.control_plane.cluster.access import in_cluster
from bus_core.control_plane.leadership import Leadership
from bus_core.control_plane.sources import Source
from bus_core.driver.checks import DriverClass
from bus_core.host.choice import Assignments, Choice
from bus_core.host.from_cluster import FromCluster, StoppedError, choose_from_cluster
from bus_core.host.from_folder import FromFolder, choose_from_folder
from bus_core.model.errors import ConfigurationError
from bus_core.model.references import BusReference
from bus_core.model.resources import DISPATCHER, PROVISIONER, Role
from bus_core.settings.settings import Settings

__all__ = ["ROLES", "FromCluster", "FromFolder", "RunConfig", "StoppedError", "make_run_config"]

ROLES: dict[str, tuple[Role, ...]] = {
    "all": (PROVISIONER, DISPATCHER),
    "provisioner": (PROVISIONER,),
    "dispatcher": (DISPATCHER,),
}


@dataclass(frozen=True, slots=True)
class RunConfig:
    """Everything that is known of a run before it starts. Immutable; created once, and shared by all workers."""

    settings: Settings
    bus: BusReference
    driver: DriverClass
    driver_settings: Any
    origin: FromFolder | FromCluster
    roles: tuple[Role, ...] = field(default=ROLES["all"])

    def source(self) -> Source:
        """A new source of the resources; each worker needs its own."""
        return self.origin.source(self.bus, self.roles)

    def leadership(self) -> Leadership:
        """A new candidate in the leader election; each worker needs its own."""
        return self.origin.leadership(self.bus)


def make_run_config(settings: Settings, assignments: Assignments | None = None) -> RunConfig:
    """Choose the bus and the driver, and check both.

    If only the Bus in a cluster names the driver, wait for the API server and the Bus.

    Args:
        settings: the host's settings.
        assignments: the texts of `--set DRIVER.FIELD=VALUE`, by driver and field.

    Raises:
        ConfigurationError: a setting is missing, contradicts another one, or is refused; the text names the remedy.
        StoppedError: SIGTERM or SIGINT arrived during the wait.
    """
    if DISPATCHER in ROLES[settings.role]:
        _check_addresses(settings)
    choice, origin = _choose(settings, assignments or {})
    return RunConfig(settings, choice.bus, choice.driver, choice.driver_settings, origin, ROLES[settings.role])


def _choose(settings: Settings, assignments: Assignments) -> tuple[Choice, FromFolder | FromCluster]:
    if settings.manifests is not None:
        if settings.kubeconfig or settings.master:
            raise ConfigurationError("--manifests and --kubeconfig or --master name two sources; give one")
        return choose_from_folder(settings, settings.manifests, assignments)
    if settings.kubeconfig or settings.master or in_cluster():
        return choose_from_cluster(settings, assignments)
    raise ConfigurationError(
        "where are the resources? give a folder with --manifests DIR, or a cluster with --kubeconfig FILE"
    )


def _check_addresses(settings: Settings) -> None:
    """Refuse the same address for events and administration. The system's error would blame another program.

    127.0.0.1:8080 and 127.0.0.2:8080 are two addresses, but 0.0.0.0:8080 includes both.
    """
    (host, _, port), (admin, _, admin_port) = (text.rpartition(":") for text in (settings.bind, settings.admin_bind))
    one_family = (":" in host) == (":" in admin)
    same = host == admin or (one_family and not {host, admin}.isdisjoint({"0.0.0.0", "[::]"}))
    if port == admin_port and port.strip("0").isdigit() and same:
        first, second = settings.origin("bind"), settings.origin("admin_bind")
        raise ConfigurationError(
            f"{first} {settings.bind} and {second} {settings.admin_bind} are the same address: give each its own port"
        )
