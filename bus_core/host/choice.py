"""Host: the choice of bus, driver and driver settings, as far as folder and cluster share it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bus_core.control_plane.crds.validation import DNS_LABEL
from bus_core.driver.checks import DriverClass
from bus_core.driver.loader import driver_names, installed_drivers, load_driver
from bus_core.model.errors import ConfigurationError
from bus_core.model.references import BusReference
from bus_core.settings.resolve import driver_sections, load_driver_settings
from bus_core.settings.settings import Settings

Assignments = Mapping[str, Mapping[str, str]]
"""The texts of `--set DRIVER.FIELD=VALUE`, by driver and field."""

_LONGEST_LABEL = 63


@dataclass(frozen=True, slots=True)
class Choice:
    """The bus to serve, its driver, and the driver's settings (None if the driver has none)."""

    bus: BusReference
    driver: DriverClass
    driver_settings: Any


def parse_bus(text: str) -> BusReference:
    """The bus that `[NAMESPACE/]NAME` names.

    Raises:
        ConfigurationError: a part is not a DNS label (RFC 1123).
    """
    reference = BusReference.parse(text)
    if not all(len(name) <= _LONGEST_LABEL and DNS_LABEL.fullmatch(name) for name in text.split("/")):
        raise ConfigurationError(
            f"{text!r} does not name a bus: names are DNS labels of at most 63 characters, a-z, 0-9 and '-' (RFC 1123)"
        )
    return reference


def choose_driver(settings: Settings, bus: BusReference, name: str, assignments: Assignments) -> Choice:
    """Load a driver and its settings.

    Raises:
        ConfigurationError: the driver is not installed or breaks the contract, its settings are invalid, or there are
            settings for another driver.
    """
    driver = load_driver(name)
    loaded = load_driver_settings(driver.settings, name, assignments.get(name, {}), settings)
    installed = driver_names()
    for section, place in driver_sections(settings).items():
        if section not in installed:
            raise ConfigurationError(
                f"{place}: there is no such setting, and no such driver is installed "
                f"(installed: {', '.join(installed)})"
            )
    others = sorted(assignments.keys() - {name})
    if others:
        raise ConfigurationError(f"--set names the driver {', '.join(others)}, but the bus {bus} runs on {name}")
    return Choice(bus, driver, loaded)


def no_driver_named(bus: BusReference) -> ConfigurationError:
    """The error when neither the Bus nor a flag names a driver."""
    names = ", ".join(driver.name for driver in installed_drivers()) or "none"
    return ConfigurationError(
        f"the bus {bus} does not name a driver: set spec.driver, or give --driver NAME (installed: {names})"
    )
