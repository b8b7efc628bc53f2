"""The host's hooks: a lane is open while its subscription is, and no hook is called once the driver closes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import pytest

from bus_core import (
    Bus,
    BusSpec,
    Channel,
    ChannelSpec,
    Metadata,
    PermanentError,
    Subscription,
    SubscriptionSpec,
    TemporaryError,
)
from bus_core.data_plane.delivery import Delivery
from bus_core.data_plane.dispatch import MessageDispatcher
from bus_core.driver.calls import DriverHooks
from bus_core.host.hooks import HostHooks

CHANNEL = Channel(Metadata("orders", "default"), spec=ChannelSpec())
ONE = Subscription(Metadata("one", "default", uid="1"), spec=SubscriptionSpec(channel="orders", subscriber="http://x/"))
LANE = "default/one"


class FakeDriver:
    """Notes which hooks were called and whether the lane was open then; raises `error` if it is set."""

    name = "fake"
    declared = ()

    def __init__(self, delivery: Delivery) -> None:
        self.resources = self
        self.error: Exception | None = None
        self.calls: list[tuple[str, bool]] = []
        self._delivery = delivery

    def note(self, hook: str) -> None:
        self.calls.append((hook, LANE in self._delivery.depths()))
        if self.error is not None:
            raise self.error

    def sync_bus(self, bus: Bus) -> None:
        self.note("sync_bus")

    def provision(self, **_: Any) -> None:
        self.note("provision")

    def unprovision(self, **_: Any) -> None:
        self.note("unprovision")

    def subscribe(self, **_: Any) -> None:
        self.note("subscribe")

    def unsubscribe(self, **_: Any) -> None:
        self.note("unsubscribe")


@pytest.fixture
def delivery() -> Iterator[Delivery]:
    dispatcher = MessageDispatcher()
    delivery = Delivery(dispatcher)
    yield delivery
    delivery.drain(0)
    dispatcher.close()


@pytest.fixture
def driver(delivery: Delivery) -> FakeDriver:
    return FakeDriver(delivery)


@pytest.fixture
def hooks(driver: FakeDriver, delivery: Delivery) -> HostHooks:
    return HostHooks(cast(DriverHooks, driver), delivery)


def test_a_lane_is_open_while_its_subscription_is(hooks: HostHooks, driver: FakeDriver, delivery: Delivery) -> None:
    hooks.subscribe(CHANNEL, ONE, {}, {})
    assert LANE in delivery.depths()
    hooks.unsubscribe(CHANNEL, ONE)
    assert LANE not in delivery.depths()
    assert driver.calls == [("subscribe", True), ("unsubscribe", True)]


def test_a_subscribe_that_fails_leaves_no_lane_unless_it_worked_before(
    hooks: HostHooks, driver: FakeDriver, delivery: Delivery
) -> None:
    driver.error = TemporaryError("not now")
    with pytest.raises(TemporaryError, match="not now"):
        hooks.subscribe(CHANNEL, ONE, {}, {})
    assert LANE not in delivery.depths()
    driver.error = None
    hooks.subscribe(CHANNEL, ONE, {}, {})
    driver.error = TemporaryError("not now")
    with pytest.raises(TemporaryError, match="not now"):
        hooks.subscribe(CHANNEL, ONE, {}, {})
    assert LANE in delivery.depths(), "it goes on as it was"


def test_an_unsubscribe_that_fails_keeps_the_lane(hooks: HostHooks, driver: FakeDriver, delivery: Delivery) -> None:
    hooks.subscribe(CHANNEL, ONE, {}, {})
    driver.error = TemporaryError("not now")
    with pytest.raises(TemporaryError, match="not now"):
        hooks.unsubscribe(CHANNEL, ONE)
    assert LANE in delivery.depths()


def test_a_bus_that_names_another_driver_is_refused(hooks: HostHooks, driver: FakeDriver) -> None:
    with pytest.raises(PermanentError, match=r"'kafka'.*'fake'"):
        hooks.sync_bus(Bus(Metadata("demo", "default"), spec=BusSpec(driver="kafka")))
    assert driver.calls == []
    hooks.sync_bus(Bus(Metadata("demo", "default"), spec=BusSpec(driver="fake")))
    hooks.sync_bus(Bus(Metadata("demo", "default"), spec=BusSpec()))
    assert [hook for hook, _ in driver.calls] == ["sync_bus", "sync_bus"]


def test_no_hook_is_called_once_the_driver_closes(hooks: HostHooks, driver: FakeDriver, delivery: Delivery) -> None:
    hooks.close()
    bus = Bus(Metadata("demo", "default"), spec=BusSpec())
    with pytest.raises(TemporaryError, match="stopping"):
        hooks.sync_bus(bus)
    with pytest.raises(TemporaryError, match="stopping"):
        hooks.provision(CHANNEL, {})
    with pytest.raises(TemporaryError, match="stopping"):
        hooks.unprovision(CHANNEL, {})
    with pytest.raises(TemporaryError, match="stopping"):
        hooks.subscribe(CHANNEL, ONE, {}, {})
    with pytest.raises(TemporaryError, match="stopping"):
        hooks.unsubscribe(CHANNEL, ONE)
    assert driver.calls == []
    assert delivery.depths() == {}
