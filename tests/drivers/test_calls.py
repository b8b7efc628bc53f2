"""How the host calls a driver: with those arguments that the driver's hook takes."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import threading
from concurrent.futures import Future
from typing import Any

import pytest

from bus_core import (
    Bus,
    BusReference,
    BusSpec,
    Channel,
    ChannelReference,
    ChannelSpec,
    DriverContext,
    ForwardedHeaders,
    Message,
    Metadata,
    Outcome,
    Subscription,
    SubscriptionReference,
    SubscriptionSpec,
    hookimpl,
)
from bus_core.driver.calls import DriverHooks
from bus_core.driver.checks import check_driver
from bus_core.telemetry import get_logger

ORDERS = ChannelReference("orders")
EVENT = Message({}, b"x")
CHANNEL = Channel(Metadata("orders", "default"), spec=ChannelSpec())
SUBSCRIPTION = Subscription(Metadata("one", "default"), spec=SubscriptionSpec(channel="orders", subscriber="x"))


class Base:
    api = 1

    def __init__(self, context: DriverContext) -> None:
        self.calls: list[Any] = []
        context.report(SubscriptionReference("one"), "Blocked", "from __init__")

    @hookimpl
    def provision(self, channel: Channel) -> None:
        self.calls.append(("provision", channel))

    @hookimpl
    def unprovision(self, parameters: dict[str, str]) -> None:
        self.calls.append(("unprovision", parameters))

    @hookimpl
    def subscribe(self, subscription: Subscription, channel_parameters: dict[str, str]) -> None:
        self.calls.append(("subscribe", subscription, channel_parameters))

    @hookimpl
    def unsubscribe(self) -> None:
        self.calls.append(("unsubscribe",))


class Two(Base):
    @hookimpl
    def receive(self, channel: ChannelReference, message: Message) -> None:
        self.calls.append((channel, message))


class Three(Base):
    @hookimpl
    def receive(self, channel: ChannelReference, message: Message, parameters: dict[str, str]) -> None:
        self.calls.append((channel, message, parameters))


class Turned(Base):
    @hookimpl
    def receive(self, parameters: dict[str, str], message: Message) -> None:
        self.calls.append((parameters, message))


class Waiting(Base):
    @hookimpl
    async def receive(self, message: Message) -> None:
        await asyncio.sleep(0)
        self.calls.append((message,))

    @hookimpl
    def sync_bus(self, bus: Bus) -> None:
        self.calls.append(("sync_bus", bus))


def construct(cls: type, monkeypatch: pytest.MonkeyPatch) -> tuple[DriverHooks, list[Any]]:
    """The driver as the host makes it, and what its hooks were called with."""
    made: list[Base] = []
    init = Base.__init__

    def remember(self: Base, context: DriverContext) -> None:
        init(self, context)
        made.append(self)

    monkeypatch.setattr(Base, "__init__", remember)
    context = DriverContext(
        bus=BusReference("demo", "default"),
        settings=None,
        logger=get_logger("test"),
        exit_stack=contextlib.ExitStack(),
        stopping=threading.Event(),
        publish=lambda channel, message: None,
        submit=lambda subscription, message, *, key=None: Future[Outcome](),
        report=lambda subscription, reason="", message="": None,
        forwarded=ForwardedHeaders(),
    )
    hooks = check_driver("test", cls).construct(context)
    return hooks, made[0].calls


@pytest.mark.parametrize(
    ("cls", "given"), [(Two, (ORDERS, EVENT)), (Three, (ORDERS, EVENT, {"a": "b"})), (Turned, ({"a": "b"}, EVENT))]
)
def test_receive_gets_the_arguments_that_it_takes(
    cls: type, given: tuple[Any, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    hooks, calls = construct(cls, monkeypatch)
    assert not hooks.receive_is_async
    assert hooks.receive(ORDERS, EVENT, {"a": "b"}) is None
    assert calls == [given]


def test_receive_may_be_async(monkeypatch: pytest.MonkeyPatch) -> None:
    hooks, calls = construct(Waiting, monkeypatch)
    assert hooks.receive_is_async
    accepted = hooks.receive(ORDERS, EVENT, {})
    assert inspect.iscoroutine(accepted)
    assert calls == [], "an async def has not begun before it is awaited"
    asyncio.run(accepted)
    assert calls == [(EVENT,)]


def test_resource_hooks_get_the_arguments_that_they_take(monkeypatch: pytest.MonkeyPatch) -> None:
    hooks, calls = construct(Two, monkeypatch)
    hooks.resources.provision(channel=CHANNEL, parameters={"a": "b"})
    hooks.resources.unprovision(channel=CHANNEL, parameters={"a": "b"})
    hooks.resources.subscribe(
        channel=CHANNEL, subscription=SUBSCRIPTION, parameters={"c": "d"}, channel_parameters={"a": "b"}
    )
    hooks.resources.unsubscribe(channel=CHANNEL, subscription=SUBSCRIPTION)
    assert calls == [
        ("provision", CHANNEL),
        ("unprovision", {"a": "b"}),
        ("subscribe", SUBSCRIPTION, {"a": "b"}),
        ("unsubscribe",),
    ]


def test_sync_bus_is_optional(monkeypatch: pytest.MonkeyPatch) -> None:
    bus = Bus(Metadata("demo", "default"), spec=BusSpec())
    hooks, calls = construct(Two, monkeypatch)
    hooks.sync_bus(bus)
    assert calls == []
    hooks, calls = construct(Waiting, monkeypatch)
    hooks.sync_bus(bus)
    assert calls == [("sync_bus", bus)]
