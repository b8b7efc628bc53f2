"""Driver calls: one constructed driver, and how the host calls its hooks."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, cast

import pluggy

from bus_core.driver.hookspecs import PROJECT, BusSyncing, Driver, ResourceHooks
from bus_core.model.errors import DriverError
from bus_core.model.message import Message
from bus_core.model.parameters import Parameter, ResolvedParameters
from bus_core.model.references import ChannelReference
from bus_core.model.resources import AnyBus

_RECEIVE = ("channel", "message", "parameters")
"""The arguments that the contract offers to `receive`, in order. A driver may take fewer."""


class DriverHooks:
    """One constructed driver. Thread-safe as far as the driver is.

    Args:
        name: the name of the driver's entry point.
        instance: an instance of a class that `bus_core.driver.checks.check_driver` accepts.
        declared: the parameters that the driver declares.

    Raises:
        DriverError: the instance has a hook that the contract does not declare.
    """

    def __init__(self, name: str, instance: object, declared: Sequence[Parameter]) -> None:
        manager = pluggy.PluginManager(PROJECT)
        manager.add_hookspecs(Driver)
        manager.add_hookspecs(BusSyncing)
        manager.register(instance, name=name)
        try:
            manager.check_pending()
        except pluggy.PluginValidationError as error:
            raise DriverError(f"driver {name!r}: {error}") from None
        self.name = name
        self.declared = declared
        self.resources = cast(ResourceHooks, manager.hook)
        """The driver's resource hooks. Call them with keyword arguments, and with all that the contract lists: pluggy
        passes to a driver those that it takes."""
        (receive,) = manager.hook.receive.get_hookimpls()
        self._receive = cast("Callable[..., Awaitable[None] | None]", receive.function)
        self._receive_names = tuple(receive.argnames)
        self._receives_two = self._receive_names == _RECEIVE[:2]
        self._receives_all = self._receive_names == _RECEIVE
        self.receive_is_async = inspect.iscoroutinefunction(receive.function)
        """Whether `receive` is an `async def`: a call then returns an awaitable."""
        self._sync_bus: Callable[..., Any] = manager.hook.sync_bus

    def sync_bus(self, bus: AnyBus) -> None:
        """Call the driver's `sync_bus`, if it has one."""
        self._sync_bus(bus=bus)

    def receive(
        self, channel: ChannelReference, message: Message, parameters: ResolvedParameters
    ) -> Awaitable[None] | None:
        """Call the driver's `receive` with the arguments that it takes.

        The call bypasses pluggy: its loop over all implementations costs 3 % of an event with one subscription.
        """
        if self._receives_two:
            return self._receive(channel, message)
        if self._receives_all:
            return self._receive(channel, message, parameters)
        given = dict(zip(_RECEIVE, (channel, message, parameters), strict=True))
        return self._receive(**{name: given[name] for name in self._receive_names})
