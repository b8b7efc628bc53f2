"""A driver's types against the Protocol: `make lint` holds this file to mypy --strict, and an error that it does not
find is one (an ignore that nothing needs)."""

from __future__ import annotations

import pytest

from bus_core import (
    BusSyncing,
    Channel,
    ChannelReference,
    Driver,
    DriverError,
    Message,
    ResolvedParameters,
    Subscription,
    hookimpl,
)
from bus_core.driver.checks import check_driver
from bus_core.model.resources import AnyBus


class Full:
    """Every hook with every argument."""

    api = 1

    @hookimpl
    def provision(self, channel: Channel, parameters: ResolvedParameters) -> None: ...

    @hookimpl
    def unprovision(self, channel: Channel, parameters: ResolvedParameters) -> None: ...

    @hookimpl
    def subscribe(
        self,
        channel: Channel,
        subscription: Subscription,
        parameters: ResolvedParameters,
        channel_parameters: ResolvedParameters,
    ) -> None: ...

    @hookimpl
    def unsubscribe(self, channel: Channel, subscription: Subscription) -> None: ...

    @hookimpl
    async def receive(self, channel: ChannelReference, message: Message, parameters: ResolvedParameters) -> None: ...

    @hookimpl
    def sync_bus(self, bus: AnyBus) -> None: ...


class Plain(Full):
    """`receive` as a plain function."""

    @hookimpl
    def receive(self, channel: ChannelReference, message: Message, parameters: ResolvedParameters) -> None: ...  # type: ignore[override]


class WrongArgument(Full):
    @hookimpl
    def provision(self, channel: str, parameters: ResolvedParameters) -> None: ...  # type: ignore[override]


class LacksUnprovision:
    api = 1
    provision = Full.provision
    subscribe = Full.subscribe
    unsubscribe = Full.unsubscribe
    receive = Full.receive


full: type[Driver] = Full
plain: type[Driver] = Plain
syncing: type[BusSyncing] = Full
wrong: type[Driver] = WrongArgument  # type: ignore[assignment]
lacking: type[Driver] = LacksUnprovision  # type: ignore[assignment]


@pytest.mark.parametrize("kind", [full, plain])
def test_what_the_types_allow_the_host_takes(kind: type[Driver]) -> None:
    assert check_driver("typed", kind).name == "typed"


def test_what_the_types_refuse_the_host_refuses() -> None:
    with pytest.raises(DriverError, match="unprovision"):
        check_driver("typed", lacking)
