"""Driver contract, checked: whether a class is a driver that this host can run.

The host checks a driver class before it forks the workers, and reports each problem as one sentence with the remedy.
pluggy 1.7 silently accepts a class that lacks a hook, and a hook without `@hookimpl` (measured).
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass

from bus_core.driver.calls import DriverHooks
from bus_core.driver.hookspecs import API, PROJECT, BusSyncing, Driver, DriverContext, DriverSettings
from bus_core.model.errors import DriverError
from bus_core.model.parameters import Parameter
from bus_core.model.suggest import did_you_mean

_REQUIRED = ("provision", "unprovision", "subscribe", "unsubscribe", "receive")
_OPTIONAL = ("sync_bus",)
_HOOKS = _REQUIRED + _OPTIONAL
_MARK = f"{PROJECT}_impl"
"""The attribute that `@hookimpl` sets on a method: the project's name and `_impl`, as pluggy documents it."""


@dataclass(frozen=True, slots=True)
class DriverClass:
    """A driver class that keeps the contract, before it is constructed.

    Attributes:
        name: the entry point's name.
        cls: the class.
        parameters: the parameters that it declares.
        settings: its settings class, or None.
    """

    name: str
    cls: type
    parameters: tuple[Parameter, ...]
    settings: type[DriverSettings] | None

    def construct(self, context: DriverContext) -> DriverHooks:
        """Make this worker's instance of the driver.

        Raises:
            DriverError: the instance has a hook that the contract does not declare.
            Exception: any error of the driver's own `__init__`.
        """
        return DriverHooks(self.name, self.cls(context), self.parameters)


def check_driver(name: str, cls: object) -> DriverClass:
    """Check a class against the driver contract.

    Args:
        name: the name of the entry point.
        cls: the entry point's value.

    Raises:
        DriverError: the class breaks the contract; the text names the problem and the remedy.
    """
    if not inspect.isclass(cls):
        raise _refused(name, f"its entry point names {cls!r}; it must name the driver class, as in 'my_bus:MyBus'")
    api = getattr(cls, "api", None)
    if api != API:
        told = "declares no api" if api is None else f"is written for api {api!r}"
        raise _refused(
            name, f"{cls.__name__} {told}; this host has api {API}: set `api = {API}` or install a matching version"
        )
    marked = [attribute for attribute, member in inspect.getmembers(cls, callable) if hasattr(member, _MARK)]
    for attribute in marked:
        if attribute not in _HOOKS:
            hint = did_you_mean(attribute, _HOOKS, f"the hooks are {', '.join(_HOOKS)}")
            raise _refused(
                name, f"{cls.__name__}.{attribute} is marked @hookimpl, but the contract has no such hook; {hint}"
            )
    for hook in _HOOKS:
        if hasattr(cls, hook) and hook not in marked:
            raise _refused(
                name, f"{cls.__name__}.{hook} is named like a hook but lacks @hookimpl; add it, or rename the method"
            )
    missing = [hook for hook in _REQUIRED if hook not in marked]
    if missing:
        raise _refused(
            name,
            f"{cls.__name__} lacks the hook{'s'[: len(missing) > 1]} {', '.join(missing)}; add each with @hookimpl",
        )
    for hook in marked:
        _check_signature(name, cls, hook)
    return DriverClass(name, cls, _declared_parameters(name, cls), _declared_settings(name, cls))


def _refused(name: str, problem: str) -> DriverError:
    return DriverError(f"driver {name!r}: {problem}")


def _check_signature(name: str, cls: type, hook: str) -> None:
    function = inspect.unwrap(getattr(cls, hook))
    if hook != "receive" and (inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function)):
        raise _refused(name, f"{cls.__name__}.{hook} is an async def; write a plain def: only receive may be async")
    specification = BusSyncing if hook in _OPTIONAL else Driver
    allowed = list(inspect.signature(getattr(specification, hook)).parameters)[1:]
    for argument in list(inspect.signature(function).parameters.values())[1:]:
        if argument.kind in (argument.VAR_POSITIONAL, argument.VAR_KEYWORD) or argument.name not in allowed:
            hint = did_you_mean(argument.name, allowed, f"it may take {', '.join(allowed)}")
            raise _refused(
                name, f"{cls.__name__}.{hook} has an argument {argument.name!r} that the hook does not offer; {hint}"
            )


def _declared_parameters(name: str, cls: type) -> tuple[Parameter, ...]:
    declared = getattr(cls, "parameters", ())
    if not isinstance(declared, (tuple, list)) or not all(isinstance(item, Parameter) for item in declared):
        raise _refused(name, f"{cls.__name__}.parameters must be a tuple of bus_core.Parameter")
    return tuple(declared)


def _declared_settings(name: str, cls: type) -> type[DriverSettings] | None:
    settings = getattr(cls, "settings", None)
    if settings is not None and not (inspect.isclass(settings) and issubclass(settings, DriverSettings)):
        raise _refused(name, f"{cls.__name__}.settings must be a subclass of bus_core.DriverSettings")
    return settings
