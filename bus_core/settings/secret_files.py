"""Settings: the layer of the folder `--secrets-dir`, with one file for each secret of a driver."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bus_core.model.errors import ConfigurationError
from bus_core.model.suggest import did_you_mean
from bus_core.settings.layers import Layer, Owner, TextReader


def secret_layer(folder: Path, said_by: str, owner: Owner, names: Sequence[str], reader: TextReader) -> Layer:
    """The files of the folder whose names are variables of the owner, in upper or lower case.

    White space around the text of a file is not part of the secret.

    Args:
        folder: such as a mounted Kubernetes Secret.
        said_by: the flag or variable that sets the folder, for an error message.
        owner: the driver. Files without its prefix are ignored.
        names: the settings that the driver has.
        reader: reads the driver's settings.

    Raises:
        ConfigurationError: the folder does not exist, a file cannot be read, or a file's name is not a setting.
    """
    if not folder.is_dir():
        raise ConfigurationError(f"{said_by} {folder}: there is no such folder; create it, or remove the setting")
    values: dict[str, Any] = {}
    places: dict[tuple[str, ...], str] = {}
    try:
        paths = sorted(path for path in folder.iterdir() if path.name.lower().startswith(owner.prefix.lower()))
    except OSError as error:
        raise ConfigurationError(f"{folder} cannot be read: {error.strerror}") from None
    for path in paths:
        name = path.name.lower().removeprefix(owner.prefix.lower())
        if name not in names:
            hint = did_you_mean(path.name.upper(), [owner.variable(known) for known in names])
            raise ConfigurationError(f"{path}: there is no such setting{hint and '; '}{hint}")
        values[name] = reader.read(name, _text(path), str(path))
        places[(name,)] = str(path)
    return Layer(values, places)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigurationError(f"{path} is not UTF-8 text") from None
