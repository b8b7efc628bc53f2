"""Settings: error messages. One clause per problem, with its place: flag, variable, or line of the file."""

from __future__ import annotations

import os
from collections.abc import Sequence

from pydantic import BaseModel, ValidationError

from bus_core.model.suggest import closest, did_you_mean
from bus_core.settings.layers import Layer, Owner, setting_fields
from bus_core.settings.settings import ENV_PREFIX, Settings

_RESEMBLES = 0.75
"""The least similarity, from 0 to 1, at which a variable counts as a mistyped setting."""


def sentences(error: ValidationError, cls: type[BaseModel], layers: Sequence[Layer], owner: Owner, hint: str) -> str:
    """The problems of settings as text. It leaves out the values, which may be secrets.

    Args:
        error: pydantic's error for the settings class `cls`.
        layers: the highest first.
        owner: the host or a driver.
        hint: for an unknown setting that resembles no known one.
    """
    clauses = []
    for problem in error.errors(include_url=False, include_input=False, include_context=False):
        path = tuple(str(part) for part in problem["loc"])
        text = problem["msg"].removeprefix("Value error, ")
        text = text[:1].lower() + text[1:]
        if problem["type"] == "extra_forbidden" and len(path) == 1:
            near = did_you_mean(path[0], setting_fields(cls), hint)
            text = "there is no such setting" + (near and f"; {near}")
        clauses.append(f"{_place(path, layers, owner)}: {text}")
    return "; ".join(clauses)


def _place(path: tuple[str, ...], layers: Sequence[Layer], owner: Owner) -> str:
    """The place of a problem: in the highest layer that sets the key, else in the highest that sets the setting."""
    if not path:
        return str(owner)
    for wanted in (path, path[:1]):
        for layer in layers:
            if layer.holds(wanted):
                return layer.place(path)
    return ".".join([owner.missing(path[0]), *path[1:]])


def mistyped_variables() -> list[str]:
    """One sentence for each environment variable that resembles a setting of the host and is not one.

    It skips other variables that begin with `BUS_`: a cluster sets BUS_PORT and BUS_SERVICE_HOST for a Service named
    bus.
    """
    known = [name.upper() for name in Settings.model_fields]
    names = {variable.upper().removeprefix(ENV_PREFIX) for variable in os.environ if _is_ours(variable)}
    found = {name: closest(name, known, cutoff=_RESEMBLES) for name in sorted(names.difference(known))}
    return [
        f"{ENV_PREFIX}{name} is not a setting and is ignored; did you mean {ENV_PREFIX}{near}?"
        for name, near in found.items()
        if near
    ]


def _is_ours(variable: str) -> bool:
    return variable.upper().startswith(ENV_PREFIX)
