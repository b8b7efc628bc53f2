"""Model: the parameters that a driver or a Bus declares, and how the arguments of a resource are resolved."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from bus_core.model.errors import ParameterError

ParameterScope = Literal["channel", "subscription"]

ResolvedParameters = Mapping[str, str]
"""Values by name. The resource's argument overrides the Bus's default, which overrides the driver's default."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter that a driver or a Bus understands. Without a default it is required."""

    name: str
    description: str = ""
    default: str | None = None
    scope: ParameterScope = "channel"


def resolve_parameters(
    scope: ParameterScope, *declared: Iterable[Parameter], arguments: Mapping[str, str]
) -> tuple[ResolvedParameters, list[str]]:
    """Resolve `arguments` against the declared parameters. A later declaration overrides an earlier default.

    Returns:
        The values by name, and the names of undeclared arguments. It skips those; the caller warns.

    Raises:
        ParameterError: required parameters have no value. The text names all of them.
    """
    defaults: dict[str, str | None] = {}
    for declarations in declared:
        for parameter in declarations:
            if parameter.scope == scope:
                inherited = defaults.get(parameter.name)
                defaults[parameter.name] = inherited if parameter.default is None else parameter.default
    known = {name: value for name, value in arguments.items() if name in defaults}
    values = {name: known.get(name, default) for name, default in defaults.items()}
    missing = sorted(name for name, value in values.items() if value is None)
    if missing:
        named = ", ".join(missing)
        raise ParameterError(f"required {scope} parameters have no value: {named}; set each in spec.arguments")
    resolved = {name: value for name, value in values.items() if value is not None}
    return resolved, sorted(set(arguments) - set(known))
