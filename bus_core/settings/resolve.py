"""Settings: puts the layers in order and makes settings of them, by one rule for the host and the drivers.

The order, highest first: flag, environment variable, secret file, settings file, default. The host has no secret files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from bus_core.model.errors import ConfigurationError
from bus_core.settings.layers import (
    Layer,
    Owner,
    TextReader,
    assignment_layer,
    environment_layer,
    flag_layer,
    setting_fields,
)
from bus_core.settings.problems import sentences
from bus_core.settings.secret_files import secret_layer
from bus_core.settings.settings import Settings
from bus_core.settings.settings_file import SettingsFile, read_settings_file

M = TypeVar("M", bound=BaseModel)

_HOST = Owner()


class _NoSettings(BaseModel):
    """Stands for the settings class of a driver that declares none."""


def resolve(cls: type[M], layers: Sequence[Layer], owner: Owner, hint: str = "") -> M:
    """Settings from layers. If several layers set a value, the highest wins; mappings are merged key by key.

    Args:
        cls: the settings class; its defaults are the lowest layer.
        layers: the highest first.
        owner: the host or a driver, for error messages.
        hint: for an unknown setting that resembles no known one.

    Raises:
        ConfigurationError: a setting is unknown or missing, or a value is invalid. The text has one clause per problem,
            with its place.
    """
    values: dict[str, Any] = {}
    for layer in reversed(layers):
        values = _merged(values, layer.values)
    try:
        return cls.model_validate(values)
    except ValidationError as error:
        raise ConfigurationError(sentences(error, cls, layers, owner, hint)) from None


def load_settings(flags: Mapping[str, Any]) -> Settings:
    """The settings of the host, from flags, environment and settings file.

    Args:
        flags: the values of the given flags, by setting.

    Raises:
        ConfigurationError: a value is invalid, or the file has an unknown key. The text names the place of each.
    """
    layers = [flag_layer(flags, _HOST), environment_layer(_HOST, list(Settings.model_fields), TextReader(Settings))]
    for layer in layers:
        if layer.values.get("config") is not None:
            layers.append(read_settings_file(Path(layer.values["config"]), layer.place(("config",))).host_layer())
            break
    hint = "the section of a driver holds FIELD: VALUE lines"
    settings = resolve(Settings, layers, _HOST, hint)
    return settings.with_places({name: layer.place((name,)) for layer in reversed(layers) for name in layer.values})


def load_driver_settings(cls: type[M] | None, driver: str, given: Mapping[str, str], settings: Settings) -> M | None:
    """The settings of a driver, from `--set DRIVER.FIELD=VALUE`, the environment `DRIVER_FIELD`, a secret file
    `DRIVER_FIELD` and the section `DRIVER:` of the settings file.

    Args:
        cls: the driver's settings class, or None.
        driver: the name of the driver.
        given: the assignments, by `FIELD` or `FIELD.KEY`.
        settings: the host's settings, which name the folder of secrets and the settings file.

    Raises:
        ConfigurationError: the driver does not have a setting, or a value is invalid.
    """
    owner = Owner(driver)
    fields = cls or _NoSettings
    names, reader = list(setting_fields(fields)), TextReader(fields)
    layers = [assignment_layer(given, owner, reader), environment_layer(owner, names, reader)]
    if settings.secrets_dir is not None:
        layers.append(secret_layer(settings.secrets_dir, settings.origin("secrets_dir"), owner, names, reader))
    layers.append(_file(settings).driver_layer(driver))
    if cls is not None:
        return resolve(cls, layers, owner)
    for place in (place for layer in layers for place in layer.places.values()):
        raise ConfigurationError(f"the driver {driver!r} has no settings; remove {place}")
    return None


def driver_sections(settings: Settings) -> dict[str, str]:
    """The place of each section of the settings file, by the driver's name."""
    file = _file(settings)
    return {name: file.place(name) for name in file.sections}


def _file(settings: Settings) -> SettingsFile:
    if settings.config is None:
        return SettingsFile()
    return read_settings_file(settings.config, settings.origin("config"))


def _merged(low: Mapping[str, Any], high: Mapping[str, Any]) -> dict[str, Any]:
    """Both mappings as one. Values of `high` win; mappings inside are merged in the same way."""
    both = {**low, **high}
    for key in low.keys() & high.keys():
        if isinstance(low[key], Mapping) and isinstance(high[key], Mapping):
            both[key] = _merged(low[key], high[key])
    return both
