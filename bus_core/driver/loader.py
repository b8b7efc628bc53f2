"""Finds, checks and loads drivers: the only owner of plugin managers.

Everything that can be wrong with a driver class is found before the workers are forked, and said in one sentence that
names the cure: pluggy itself lets a missing hook and a forgotten `@hookimpl` pass silently (measured with 1.7).
"""

from __future__ import annotations

import importlib.metadata
import inspect
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import pluggy

from bus_core.driver.hookspecs import API, PROJECT, BusSyncing, Driver, DriverContext, DriverSettings
from bus_core.model.errors import DriverError
from bus_core.model.message import Message
from bus_core.model.parameters import Parameter, ResolvedParameters
from bus_core.model.references import ChannelReference
from bus_core.model.resources import AnyBus, Channel, Subscription
from bus_core.model.suggest import did_you_mean

GROUP = "bus_core.drivers"

_REQUIRED = ("provision", "unprovision", "subscribe", "unsubscribe", "receive")
_OPTIONAL = ("sync_bus",)
_HOOKS = _REQUIRED + _OPTIONAL
_MARK = f"{PROJECT}_impl"
"""The attribute by which `@hookimpl` marks a method (pluggy's documented convention)."""


@dataclass(frozen=True, slots=True)
class DriverClass:
    """A driver class that keeps the contract, not yet constructed.

    Attributes:
        name: the entry point's name.
        cls: the class.
        parameters: what it declares.
        settings: its settings class, or None.
    """

    name: str
    cls: type
    parameters: tuple[Parameter, ...]
    settings: type[DriverSettings] | None

    def construct(self, context: DriverContext) -> DriverHooks:
        """Make the one instance for this worker and register it.

        Raises:
            DriverError: a hook that no specification knows.
            Exception: whatever the driver's own `__init__` raises.
        """
        manager = pluggy.PluginManager(PROJECT)
        manager.add_hookspecs(Driver)
        manager.add_hookspecs(BusSyncing)
        manager.register(self.cls(context), name=self.name)
        try:
            manager.check_pending()
        except pluggy.PluginValidationError as error:
            raise DriverError(f"driver {self.name!r}: {error}") from None
        return DriverHooks(manager, self)


class DriverHooks:
    """A constructed driver, called through its hooks. Thread-safe as far as the driver is."""

    def __init__(self, manager: pluggy.PluginManager, driver: DriverClass) -> None:
        self._hook = manager.hook
        self.name = driver.name
        self.declared: Sequence[Parameter] = driver.parameters
        self.receive = _direct(manager.hook.receive)
        """The driver's `receive` with channel, message and parameters; an awaitable where `receive_is_async`."""
        self.receive_is_async = inspect.iscoroutinefunction(driver.cls.receive)  # type: ignore[attr-defined]

    def sync_bus(self, bus: AnyBus) -> None:
        self._hook.sync_bus(bus=bus)

    def provision(self, channel: Channel, parameters: ResolvedParameters) -> None:
        self._hook.provision(channel=channel, parameters=parameters)

    def unprovision(self, channel: Channel, parameters: ResolvedParameters) -> None:
        self._hook.unprovision(channel=channel, parameters=parameters)

    def subscribe(
        self,
        channel: Channel,
        subscription: Subscription,
        parameters: ResolvedParameters,
        channel_parameters: ResolvedParameters,
    ) -> None:
        self._hook.subscribe(
            channel=channel,
            subscription=subscription,
            parameters=parameters,
            channel_parameters=channel_parameters,
        )

    def unsubscribe(self, channel: Channel, subscription: Subscription) -> None:
        self._hook.unsubscribe(channel=channel, subscription=subscription)


def _direct(
    hook: pluggy.HookCaller,
) -> Callable[[ChannelReference, Message, ResolvedParameters], Awaitable[None] | None]:
    """The one implementation of a hook without pluggy's loop over all of them, for the hook that every event goes
    through: 3 % of what an event with one subscription costs."""
    (implementation,) = hook.get_hookimpls()
    call = cast("Callable[..., Awaitable[None] | None]", implementation.function)
    all_names = ("channel", "message", "parameters")
    if implementation.argnames == all_names:
        return call
    if implementation.argnames == all_names[:2]:
        return lambda channel, message, parameters: call(channel, message)
    wanted = [all_names.index(name) for name in implementation.argnames]
    return lambda *given: call(*(given[index] for index in wanted))


@dataclass(frozen=True, slots=True)
class InstalledDriver:
    """One entry point of the group: what `bus plugins` shows. `problem` says why the host would refuse it."""

    name: str
    package: str
    version: str
    summary: str
    parameters: tuple[Parameter, ...] = ()
    problem: str = ""


def installed_drivers() -> list[InstalledDriver]:
    """Every driver installed in this environment, by name, the refused ones with the reason."""
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
    """The installed drivers by name, without importing any."""
    return sorted({point.name for point in _entry_points()})


def load_driver(name: str) -> DriverClass:
    """Find the driver by its entry point's name, import it and check its class.

    Raises:
        DriverError: not installed, claimed by two packages, not importable, or not keeping the contract.
    """
    found = [point for point in _entry_points() if point.name == name]
    if not found:
        names = ", ".join(driver_names()) or "none"
        raise DriverError(f"driver {name!r} is not installed (installed: {names}); pip install the package that has it")
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


def check_driver(name: str, cls: object) -> DriverClass:
    """Hold a class against the driver contract.

    Raises:
        DriverError: with the one sentence that names the cure.
    """

    def refuse(problem: str) -> DriverError:
        return DriverError(f"driver {name!r}: {problem}")

    if not inspect.isclass(cls):
        raise refuse(f"its entry point names {cls!r}; it must name the driver class, as in 'my_bus:MyBus'")
    api = getattr(cls, "api", None)
    if api != API:
        told = "declares no api" if api is None else f"is written for api {api!r}"
        raise refuse(f"{cls.__name__} {told}; this host has api {API}: set `api = {API}` or install a matching version")
    marked = [attribute for attribute, member in inspect.getmembers(cls, callable) if hasattr(member, _MARK)]
    for attribute in marked:
        if attribute not in _HOOKS:
            hint = did_you_mean(attribute, _HOOKS, f"the hooks are {', '.join(_HOOKS)}")
            raise refuse(f"{cls.__name__}.{attribute} is marked @hookimpl but there is no such hook; {hint}")
    for hook in _HOOKS:
        if hasattr(cls, hook) and hook not in marked:
            raise refuse(
                f"{cls.__name__}.{hook} is named like a hook but lacks @hookimpl; add it, or rename the method"
            )
    missing = [hook for hook in _REQUIRED if hook not in marked]
    if missing:
        raise refuse(
            f"{cls.__name__} lacks the hook{'s'[: len(missing) > 1]} {', '.join(missing)}; add each with @hookimpl"
        )
    for hook in marked:
        _check_signature(refuse, cls, hook)
    return DriverClass(name, cls, _declared_parameters(refuse, cls), _declared_settings(refuse, cls))


def _check_signature(refuse: Any, cls: type, hook: str) -> None:
    function = inspect.unwrap(getattr(cls, hook))
    if hook != "receive" and (inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function)):
        raise refuse(f"{cls.__name__}.{hook} is an async def; only receive may be one, write a plain def")
    specification = BusSyncing if hook in _OPTIONAL else Driver
    allowed = list(inspect.signature(getattr(specification, hook)).parameters)[1:]
    for argument in list(inspect.signature(function).parameters.values())[1:]:
        if argument.kind in (argument.VAR_POSITIONAL, argument.VAR_KEYWORD) or argument.name not in allowed:
            hint = did_you_mean(argument.name, allowed, f"it may take {', '.join(allowed)}")
            raise refuse(
                f"{cls.__name__}.{hook} has an argument {argument.name!r} that the hook does not offer; {hint}"
            )


def _declared_parameters(refuse: Any, cls: type) -> tuple[Parameter, ...]:
    declared = getattr(cls, "parameters", ())
    if not isinstance(declared, (tuple, list)) or not all(isinstance(item, Parameter) for item in declared):
        raise refuse(f"{cls.__name__}.parameters must be a tuple of bus_core.Parameter")
    return tuple(declared)


def _declared_settings(refuse: Any, cls: type) -> type[DriverSettings] | None:
    settings = getattr(cls, "settings", None)
    if settings is not None and not (inspect.isclass(settings) and issubclass(settings, DriverSettings)):
        raise refuse(f"{cls.__name__}.settings must be a subclass of bus_core.DriverSettings")
    return settings


def _entry_points() -> list[importlib.metadata.EntryPoint]:
    # The same distribution can be met twice on sys.path (an editable install beside its metadata): count it once.
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
