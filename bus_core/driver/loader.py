"""Driver loader: finds the drivers that are installed in this environment, by their entry points.

A driver's package declares an entry point in the group `bus_core.drivers`; its value is the driver class.
"""

from __future__ import annotations

import importlib.metadata
from dataclasses import dataclass

from bus_core.driver.checks import DriverClass, check_driver
from bus_core.model.errors import DriverError
from bus_core.model.parameters import Parameter

GROUP = "bus_core.drivers"


@dataclass(frozen=True, slots=True)
class InstalledDriver:
    """One entry point of the group, as `bus plugins` shows it. `problem`: why the host would refuse it."""

    name: str
    package: str
    version: str
    summary: str
    parameters: tuple[Parameter, ...] = ()
    problem: str = ""


def installed_drivers() -> list[InstalledDriver]:
    """Every driver installed in this environment, by name. A driver that the host would refuse has a `problem`."""
    drivers = []
    for point in sorted(_entry_points(), key=lambda point: point.name):
        about = _package(point)
        parameters: tuple[Parameter, ...] = ()
        problem = ""
        try:
            parameters = load_driver(point.name).parameters
        except DriverError as error:
            problem = str(error)
        drivers.append(InstalledDriver(point.name, *about, parameters=parameters, problem=problem))
    return drivers


def driver_names() -> list[str]:
    """The names of the installed drivers. Imports none of them."""
    return sorted({point.name for point in _entry_points()})


def load_driver(name: str) -> DriverClass:
    """Find the driver by its entry point's name, import it and check its class.

    Raises:
        DriverError: the driver is not installed, is in two packages, cannot be imported, or breaks the contract.
    """
    found = [point for point in _entry_points() if point.name == name]
    if not found:
        names = ", ".join(driver_names()) or "none"
        raise DriverError(f"driver {name!r} is not installed (installed: {names}); pip install its package")
    if len(found) > 1:
        packages = " and ".join(sorted(_package(point)[0] for point in found))
        raise DriverError(f"driver {name!r} is claimed by {packages}: uninstall all but one")
    try:
        cls = found[0].load()
    except Exception as error:  # a driver's module may raise anything while it is imported
        package = _package(found[0])[0]
        reason = f"{type(error).__name__}: {error}"
        raise DriverError(
            f"driver {name!r} cannot be imported ({reason}); reinstall or upgrade the package {package}"
        ) from error
    return check_driver(name, cls)


def _entry_points() -> list[importlib.metadata.EntryPoint]:
    # A distribution can be on sys.path twice (an editable install beside its metadata): count it once.
    unique = {
        (point.name, point.value, _package(point)[0]): point for point in importlib.metadata.entry_points(group=GROUP)
    }
    return list(unique.values())


def _package(point: importlib.metadata.EntryPoint) -> tuple[str, str, str]:
    """Name, version and summary of the package that has the entry point."""
    if point.dist is None:
        return "unknown", "", ""
    metadata = point.dist.metadata
    return point.dist.name, point.dist.version, metadata["Summary"] if "Summary" in metadata else ""  # noqa: SIM401  # it has no typed get
