"""Settings: the layer of the YAML file `--config`, with the line of each key."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from bus_core.model.errors import ConfigurationError
from bus_core.settings.layers import Layer
from bus_core.settings.settings import Settings

_DEEPEST = 4
"""The depth to which lines are collected. Settings are not deeper, and a YAML alias may refer to itself."""


@dataclass(frozen=True, slots=True)
class SettingsFile:
    """The content of a settings file. A mapping whose key is not a setting of the host is a driver's section."""

    path: Path = Path()
    data: Mapping[str, Any] = field(default_factory=dict)
    lines: Mapping[tuple[str, ...], int] = field(default_factory=dict)

    @property
    def sections(self) -> dict[str, dict[str, Any]]:
        """The sections by driver."""
        return {
            name: {str(key): inner for key, inner in (value or {}).items()}
            for name, value in self.data.items()
            if name not in Settings.model_fields and isinstance(value, dict | None)
        }

    def place(self, *keys: str) -> str:
        """`FILE:LINE: KEY.KEY`, for an error message."""
        line = self.lines.get(keys)
        return f"{self.path}:{line}: {'.'.join(keys)}" if line else f"{self.path}: {'.'.join(keys)}"

    def host_layer(self) -> Layer:
        """The settings of the host."""
        sections = self.sections
        values = {name: value for name, value in self.data.items() if name not in sections}
        return Layer(values, {(name,): self.place(name) for name in values})

    def driver_layer(self, driver: str) -> Layer:
        """The settings of one driver; empty if the file has no section for it."""
        values = self.sections.get(driver, {})
        places = {(name,): self.place(driver, name) for name in values}
        inner = {keys[1:]: self.place(*keys) for keys in self.lines if keys[0] == driver and len(keys) > 1}
        return Layer(values, places | inner)


def read_settings_file(path: Path, said_by: str) -> SettingsFile:
    """Read a settings file.

    Args:
        path: the file.
        said_by: the flag or variable that sets the path, for an error message.

    Raises:
        ConfigurationError: the file cannot be read, is not YAML, or contains a key twice.
    """
    try:
        loader = yaml.SafeLoader(path.read_text(encoding="utf-8"))
        node = loader.get_single_node()
        lines = _lines(path, node)
        data = {} if node is None else loader.construct_document(node)
    except OSError as error:
        raise ConfigurationError(f"{said_by} {path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{said_by} {path} is not UTF-8 text: {error.reason}") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problem = " ".join(filter(None, (error.context, error.problem)))
        raise ConfigurationError(f"{path}:{mark.line + 1 if mark else 0}: is not YAML: {problem}") from None
    except yaml.YAMLError as error:
        raise ConfigurationError(f"{said_by} {path} is not YAML: {error}") from None
    if data is None:
        data = {}
    if not isinstance(data, dict):
        raise ConfigurationError(f"{said_by} {path} must hold KEY: VALUE lines")
    return SettingsFile(path, {str(key): value for key, value in data.items()}, lines)


def _lines(path: Path, node: yaml.Node | None, at: tuple[str, ...] = ()) -> dict[tuple[str, ...], int]:
    """The line of each key. Refuses a key that occurs twice."""
    found: dict[tuple[str, ...], int] = {}
    if not isinstance(node, yaml.MappingNode) or len(at) >= _DEEPEST:
        return found
    for key, value in node.value:
        here, line = (*at, str(key.value)), key.start_mark.line + 1
        if here in found:
            raise ConfigurationError(f"{path}:{line}: {'.'.join(here)} is given twice (first on line {found[here]})")
        found[here] = line
        found |= _lines(path, value, here)
    return found
