"""Host: a run whose resources come from a folder of manifests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bus_core import telemetry
from bus_core.control_plane.leadership import Leadership
from bus_core.control_plane.leadership.file_lock import FileLock
from bus_core.control_plane.sources import Source
from bus_core.control_plane.sources.folder.manifests import Folder, read_folder
from bus_core.control_plane.sources.folder.source import ManifestSource, bus_object
from bus_core.control_plane.sources.folder.state import StateDirectory, default_state_dir
from bus_core.host.choice import Assignments, Choice, choose_driver, no_driver_named, parse_bus
from bus_core.model.errors import ConfigurationError
from bus_core.model.references import BusReference
from bus_core.model.resources import AnyBus, Role
from bus_core.settings.settings import Settings

log = telemetry.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class FromFolder:
    """Resources come from a folder of manifests. The processes of one machine elect a leader by file locks."""

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


def choose_from_folder(settings: Settings, path: Path, assignments: Assignments) -> tuple[Choice, FromFolder]:
    """Choose bus and driver from the manifests of a folder.

    Raises:
        ConfigurationError: the folder does not exist, does not determine the bus or the driver, or the state directory
            cannot be used.
    """
    folder = read_folder(path)
    if not folder.exists:
        raise ConfigurationError(f"--manifests {path} is not a folder")
    reference = _which_bus(settings, folder)
    found = _find_bus(folder, reference)
    name = _which_driver(settings, reference, found, folder)
    choice = choose_driver(settings, reference, name, assignments)
    if found is None:
        _log_made_bus(folder, reference)
    state_dir = settings.state_dir or default_state_dir(path, reference)
    StateDirectory(state_dir, path)  # an error is reported here once, and not by each worker
    extra = () if found else (bus_object(reference, name),)
    return choice, FromFolder(path, state_dir, settings.allow_empty, extra)


def _which_bus(settings: Settings, folder: Folder) -> BusReference:
    if settings.bus_name:
        return parse_bus(settings.bus_name)
    buses = folder.buses
    if len(buses) == 1:
        return buses[0].reference
    if folder.errors:  # the broken file may contain the bus
        raise ConfigurationError(f"which bus? {_mistakes(folder)}, or give --bus [NAMESPACE/]NAME")
    known = ", ".join(str(bus.reference) for bus in buses) or "none"
    raise ConfigurationError(f"which bus? give --bus [NAMESPACE/]NAME (in {folder.path}: {known})")


def _mistakes(folder: Folder) -> str:
    """The first mistake of a folder, and the command that shows the others."""
    return f"{folder.errors[0]}; correct it (bus validate {folder.path} shows every mistake)"


def _find_bus(folder: Folder, reference: BusReference) -> AnyBus | None:
    return next((bus for bus in folder.buses if bus.reference == reference), None)


def _log_made_bus(folder: Folder, reference: BusReference) -> None:
    """Log that a Bus is created in memory. It is a warning if the name may be mistyped: no channel names the Bus, or
    there is another Bus."""
    buses = [str(bus.reference) for bus in folder.buses]
    named = folder.names_bus(reference)
    there = f"there is {', '.join(buses) or 'none'}" + ("" if named else ", and no channel names it")
    say = log.info if named and not buses else log.warning
    kind = "Bus" if reference.namespace else "ClusterBus"
    say(f"there is no {kind} {reference} in {folder.path} ({there}); creating one in memory")


def _which_driver(settings: Settings, reference: BusReference, found: AnyBus | None, folder: Folder) -> str:
    said = found.spec.driver if found else ""
    if said and settings.driver and said != settings.driver:
        raise ConfigurationError(
            f"the bus {reference} has driver {said!r}, but {settings.origin('driver')} is {settings.driver!r}; "
            "remove one of the two"
        )
    if said or settings.driver:
        return said or settings.driver
    if found is not None:
        raise no_driver_named(reference)
    if folder.errors:
        raise ConfigurationError(
            f"no bus {reference} can be read: {_mistakes(folder)}, or give --driver to create one in memory"
        )
    hint = (
        ""
        if reference.namespace
        else f" (a bus without a namespace is a ClusterBus; did you mean default/{reference}?)"
    )
    raise ConfigurationError(
        f"there is no bus {reference} in {folder.path}{hint}; add it, or give --driver to create one in memory"
    )
