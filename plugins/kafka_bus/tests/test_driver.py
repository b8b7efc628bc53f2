"""The driver's hooks while brokers do not answer, and the tables that it keeps by name."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any

import pytest
import structlog

from bus_core import (
    Bus,
    BusReference,
    Channel,
    ChannelSpec,
    DriverContext,
    ForwardedHeaders,
    Metadata,
    ResolvedParameters,
    Subscription,
    SubscriptionSpec,
    TemporaryError,
)
from kafka_bus import KafkaBus
from kafka_bus.admin import MARGIN, AdminRequests
from kafka_bus.settings import KafkaSettings

CHANNEL = Channel(Metadata("orders", "default"), spec=ChannelSpec(bus="demo"))
ONE = Subscription(Metadata("one", "default"), spec=SubscriptionSpec(channel="orders"))
TOPIC = "knative-bus.default.demo.orders"


@pytest.fixture
def silent() -> Iterator[str]:
    """A broker that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        host, port = server.getsockname()[:2]
        yield f"{host}:{port}"


def driver(brokers: str, stopping: threading.Event) -> tuple[KafkaBus, contextlib.ExitStack]:
    def unused(*_: Any, **__: Any) -> Any:
        raise AssertionError

    stack = contextlib.ExitStack()
    settings = KafkaSettings.model_validate({"brokers": brokers, "produce_timeout": 0.5})
    logger = structlog.wrap_logger(structlog.PrintLogger(), wrapper_class=structlog.stdlib.BoundLogger)
    context = DriverContext(
        BusReference("demo", "default"), settings, logger, stack, stopping, unused, unused, unused, ForwardedHeaders()
    )
    return KafkaBus(context), stack


def parameters(scope: str) -> ResolvedParameters:
    return {each.name: each.default or "" for each in KafkaBus.parameters if each.scope == scope}


HOOKS: dict[str, Callable[[KafkaBus], None]] = {
    "sync_bus": lambda bus: bus.sync_bus(Bus(Metadata("demo", "default"))),
    "provision": lambda bus: bus.provision(CHANNEL, parameters("channel")),
    "unprovision": lambda bus: bus.unprovision(CHANNEL),
    "subscribe": lambda bus: bus.subscribe(CHANNEL, ONE, parameters("subscription")),
    "unsubscribe": lambda bus: bus.unsubscribe(CHANNEL, ONE),
}


@pytest.mark.parametrize("name", HOOKS)
def test_a_hook_that_waits_for_brokers_gives_up_when_the_host_stops(silent: str, name: str) -> None:
    stopping = threading.Event()
    bus, stack = driver(silent, stopping)
    raised: list[BaseException] = []

    def call() -> None:
        try:
            HOOKS[name](bus)
        except BaseException as error:
            raised.append(error)

    hook = threading.Thread(target=call, name="hook", daemon=True)
    with stack:
        hook.start()
        hook.join(0.5)
        assert hook.is_alive(), f"{name} waits for an answer"
        stopping.set()
        began = time.monotonic()
        hook.join(20)
        took = time.monotonic() - began
        print(f"\n{name} ended {took:.2f} s after the stop with {raised!r}")
        assert isinstance(raised[0], TemporaryError)
        assert "the host stops" in str(raised[0])
        assert took < 1


def test_a_request_that_the_client_never_ends_is_a_temporary_error() -> None:
    requests = AdminRequests(None, timeout=-MARGIN, stopping=threading.Event())
    with pytest.raises(TemporaryError, match="no answer"):
        requests.results({"never": Future()})


class Groups:
    """The groups of a cluster; `members` says whether there are any."""

    members = True

    def delete(self, group: str) -> bool:
        return not self.members


class Topics:
    def max_message_bytes(self, name: str) -> int:
        return 1000


def test_nothing_is_kept_of_a_subscription_that_was_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kafka_bus.driver.LEAVE_PAUSE", 0.001)
    stopping = threading.Event()
    bus, stack = driver("127.0.0.1:9", stopping)
    groups = Groups()
    monkeypatch.setattr(bus, "_groups", groups)
    monkeypatch.setattr(bus._limits, "_topics", Topics())
    with stack:
        bus._limits.learn(TOPIC)
        with pytest.raises(TemporaryError, match="still has members"):
            bus.unsubscribe(CHANNEL, ONE)
        groups.members = False
        bus.unsubscribe(CHANNEL, ONE)
        held = {**vars(bus), **vars(bus._limits), **vars(bus._names)}
        tables = {name: table for name, table in held.items() if isinstance(table, dict)}
        print(f"\n{tables}")
        assert set(tables) >= {"_leaving", "_limits", "_asked_at", "_names"}
        assert not any(tables.values())
        stopping.set()
