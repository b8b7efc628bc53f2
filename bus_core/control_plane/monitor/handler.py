"""Monitor, hooks: the hooks that a reconcile calls: a driver's hooks, or a program's handler functions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from bus_core.driver.hookspecs import BusSyncing, ResourceHooks
from bus_core.model.parameters import Parameter, ResolvedParameters
from bus_core.model.resources import DISPATCHER, PROVISIONER, AnyBus, Channel, Role, Subscription


class Hooks(ResourceHooks, BusSyncing, Protocol):
    """The hooks that the monitor calls. Their arguments are declared in `bus_core.driver.hookspecs`."""

    declared: Sequence[Parameter]
    """The parameters that the driver declares."""


@dataclass(frozen=True, slots=True)
class MonitorEventHandlerFuncs:
    """Functions that the monitor calls when a resource changes. Each is optional. The given ones define the roles.

    The monitor calls them on its own threads, one at a time for each channel, and again after a change, so they must be
    idempotent. If a function raises, the monitor calls it again: after `TemporaryError` in `retry_after` seconds, after
    `PermanentError` when the resource changes, after any other error with back-off.
    """

    bus_func: Callable[[AnyBus], None] | None = None
    provision_func: Callable[[Channel, ResolvedParameters], None] | None = None
    unprovision_func: Callable[[Channel], None] | None = None
    subscribe_func: Callable[[Subscription, ResolvedParameters], None] | None = None
    unsubscribe_func: Callable[[Subscription], None] | None = None

    @property
    def roles(self) -> tuple[Role, ...]:
        roles: list[Role] = []
        if self.provision_func or self.unprovision_func:
            roles.append(PROVISIONER)
        if self.subscribe_func or self.unsubscribe_func:
            roles.append(DISPATCHER)
        return tuple(roles)


class FunctionHooks:
    """Adapts handler functions to `Hooks`."""

    declared: Sequence[Parameter] = ()

    def __init__(self, functions: MonitorEventHandlerFuncs) -> None:
        self._functions = functions

    def sync_bus(self, bus: AnyBus) -> None:
        if self._functions.bus_func:
            self._functions.bus_func(bus)

    def provision(self, channel: Channel, parameters: ResolvedParameters) -> None:
        if self._functions.provision_func:
            self._functions.provision_func(channel, parameters)

    def unprovision(self, channel: Channel, parameters: ResolvedParameters) -> None:
        if self._functions.unprovision_func:
            self._functions.unprovision_func(channel)

    def subscribe(
        self,
        channel: Channel,
        subscription: Subscription,
        parameters: ResolvedParameters,
        channel_parameters: ResolvedParameters,
    ) -> None:
        if self._functions.subscribe_func:
            self._functions.subscribe_func(subscription, parameters)

    def unsubscribe(self, channel: Channel, subscription: Subscription) -> None:
        if self._functions.unsubscribe_func:
            self._functions.unsubscribe_func(subscription)
