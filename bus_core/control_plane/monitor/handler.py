"""What a reconcile calls: a driver's hooks, or the handler functions of a program that uses the Monitor alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from bus_core.model.parameters import Parameter, ResolvedParameters
from bus_core.model.resources import DISPATCHER, PROVISIONER, AnyBus, Channel, Role, Subscription


class Hooks(Protocol):
    """The resource hooks of `bus_core.driver.hookspecs.Driver`, called with every argument."""

    declared: Sequence[Parameter]

    def sync_bus(self, bus: AnyBus) -> None: ...

    def provision(self, channel: Channel, parameters: ResolvedParameters) -> None: ...

    def unprovision(self, channel: Channel, parameters: ResolvedParameters) -> None: ...

    def subscribe(
        self,
        channel: Channel,
        subscription: Subscription,
        parameters: ResolvedParameters,
        channel_parameters: ResolvedParameters,
    ) -> None: ...

    def unsubscribe(self, channel: Channel, subscription: Subscription) -> None: ...


@dataclass(frozen=True, slots=True)
class MonitorEventHandlerFuncs:
    """Functions to call when a resource requires it; each is optional, and those that are set define the role.

    They are called on monitor threads, serialised per channel, again after a change, and must be idempotent. Raising
    means failed: `TemporaryError` is tried again after its time, `PermanentError` after the next change of the
    resource, anything else with back-off.
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
    """Handler functions in the form of hooks."""

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
