"""Settings: the layer of flags, the layer of the environment, and the type of all layers.

Example: `--set kafka.topic=a` is a value in the layer of flags, and `KAFKA_TOPIC=b` is a value in the layer of the
environment. The higher layer wins. `bus_core.settings.resolve` puts the layers in order.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from pydantic import BaseModel, create_model
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, EnvSettingsSource

from bus_core.model.errors import ConfigurationError
from bus_core.settings.settings import ENV_PREFIX, flag_name

Path = tuple[str, ...]
"""The name of a setting, and the keys inside its value: `("config", "linger.ms")`."""


@dataclass(frozen=True, slots=True)
class Owner:
    """The host or a driver, and the names of its settings in each layer.

    Args:
        driver: the driver's name; empty for the host.
    """

    driver: str = ""

    @property
    def prefix(self) -> str:
        """The prefix of the owner's environment variables and secret files, such as `KAFKA_`."""
        return f"{self.driver.upper().replace('-', '_')}_" if self.driver else ENV_PREFIX

    def flag(self, name: str) -> str:
        """`--drain-timeout` of the host, `--set kafka.topic` of a driver."""
        return f"--set {self.driver}.{name}" if self.driver else flag_name(name)

    def variable(self, name: str) -> str:
        """The environment variable, such as `BUS_DRAIN_TIMEOUT` or `KAFKA_TOPIC`."""
        return f"{self.prefix}{name.upper()}"

    def missing(self, name: str) -> str:
        """The name of a setting that no layer sets, for an error message."""
        return f"{self.flag(name)} ({self.variable(name)})" if self.driver else self.flag(name)

    def __str__(self) -> str:
        return f"the settings of the driver {self.driver!r}" if self.driver else "the settings"


@dataclass(frozen=True, slots=True)
class Layer:
    """The values of one layer, by setting.

    Args:
        values: a value may be a mapping; mappings of several layers are merged key by key.
        places: for error messages, the place of a setting, or of a key inside its value.
    """

    values: Mapping[str, Any] = field(default_factory=dict)
    places: Mapping[Path, str] = field(default_factory=dict)

    def holds(self, path: Path) -> bool:
        """Whether this layer sets the whole path."""
        value: Any = self.values
        for key in path:
            if not isinstance(value, Mapping) or key not in value:
                return False
            value = value[key]
        return True

    def place(self, path: Path) -> str:
        """The place of a setting of this layer, or of a key inside its value."""
        known = next(path[:length] for length in range(len(path), 0, -1) if path[:length] in self.places)
        return ".".join([self.places[known], *path[len(known) :]])


def setting_fields(cls: type[BaseModel]) -> dict[str, FieldInfo]:
    """The fields of a settings class by the name that users write: the alias if there is one, else the field's name."""
    return {(info.alias or name): info for name, info in cls.model_fields.items()}


class TextReader:
    """Reads settings from the text of flags, variables and secret files.

    A field with several values, such as a `dict`, is read as JSON. Other text stays as it is; pydantic converts it.
    """

    def __init__(self, cls: type[BaseModel]) -> None:
        self._fields = setting_fields(cls)
        # The source knows which types hold several values. It needs a class derived from BaseSettings.
        self._source = EnvSettingsSource(cast("type[BaseSettings]", create_model("Read", __base__=(cls, BaseSettings))))

    def read(self, name: str, text: str, place: str) -> Any:
        """The value of a setting. Text of an unknown setting is returned as it is.

        Raises:
            ConfigurationError: the text is not JSON. The message leaves out the text, which may be a secret.
        """
        info = self._fields.get(name)
        if info is None:
            return text
        try:
            return self._source.prepare_field_value(name, info, text, False)
        except ValueError:
            raise ConfigurationError(f'{place}: must be JSON, such as {{"NAME": "VALUE"}}') from None


def flag_layer(flags: Mapping[str, Any], owner: Owner) -> Layer:
    """The given flags, with the values that click has already converted."""
    return Layer(flags, {(name,): owner.flag(name) for name in flags})


def assignment_layer(given: Mapping[str, str], owner: Owner, reader: TextReader) -> Layer:
    """The assignments `--set DRIVER.FIELD=VALUE` and `--set DRIVER.FIELD.KEY=VALUE`.

    Args:
        given: the texts by `FIELD` or `FIELD.KEY`.
        owner: the driver.
        reader: reads the driver's settings.

    Raises:
        ConfigurationError: one assignment sets a whole field and another sets one of its keys, or a text is not JSON.
    """
    values: dict[str, Any] = {}
    places: dict[Path, str] = {}
    for key, text in given.items():
        name, _, inner = key.partition(".")
        path = (name, inner) if inner else (name,)
        other = next((place for known, place in places.items() if known[0] == name and len(known) != len(path)), "")
        if other:
            raise ConfigurationError(
                f"{other} and {owner.flag(key)} both set {name}: set the whole value, or single keys"
            )
        places[path] = owner.flag(key)
        if inner:
            values.setdefault(name, {})[inner] = text
        else:
            values[name] = reader.read(name, text, places[path])
    # An error may be about a key or about the whole field, so both have a place.
    fields = {(name,): owner.flag(name) for name in values}
    return Layer(values, fields | places)


def environment_layer(owner: Owner, names: Sequence[str], reader: TextReader) -> Layer:
    """The environment variables of the settings `names`. Their names are case-insensitive.

    Raises:
        ConfigurationError: the text of a variable is not JSON.
    """
    variables = {variable.upper(): text for variable, text in os.environ.items()}
    said = {name: owner.variable(name) for name in names if owner.variable(name) in variables}
    values = {name: reader.read(name, variables[variable], variable) for name, variable in said.items()}
    return Layer(values, {(name,): variable for name, variable in said.items()})
