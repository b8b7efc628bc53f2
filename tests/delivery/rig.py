"""A real Delivery over real HTTP, with the few lines that its tests share."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator, Mapping
from typing import Any

from bus_core import telemetry
from bus_core.data_plane.delivery import Delivery, LaneLimits, Target
from bus_core.data_plane.dispatch import MessageDispatcher
from bus_core.model.message import Message
from bus_core.model.references import ChannelReference, SubscriptionReference
from bus_core.model.specs import DeliverySpec
from tests.support import wait_for

ORDERS = ChannelReference("orders")
FAST: dict[str, Any] = {
    "retry": 5,
    "backoff_policy": "linear",
    "backoff_delay": 0.002,
    "timeout": 5.0,
    "retry_after_max": 60.0,
    "dead_letter_sink": None,
}


class Rig:
    """Opens subscriptions of one channel and waits for their lanes."""

    def __init__(self, limits: LaneLimits | None = None, loop: asyncio.AbstractEventLoop | None = None) -> None:
        self.dispatcher = MessageDispatcher()
        self.delivery = Delivery(self.dispatcher, limits=limits)
        if loop is not None:
            attach(self.delivery, loop)
        self.drops: list[tuple[str, str, int]] = []

    def open(
        self, name: str, subscriber: str, *, reply_to: str = "", channel: ChannelReference = ORDERS, **spec: Any
    ) -> SubscriptionReference:
        reference = SubscriptionReference(name)
        self.delivery.open(Target(channel, reference, subscriber, reply_to, DeliverySpec(**{**FAST, **spec})))
        return reference

    def publish(
        self, *bodies: bytes, channel: ChannelReference = ORDERS, headers: Mapping[str, str] | None = None
    ) -> None:
        for body in bodies:
            self.delivery.publish(channel, Message({"ce-id": "1", **(headers or {})}, body))

    def settle(self, timeout: float = 10.0) -> None:
        """Until every lane is empty."""
        wait_for(lambda: not any(self.delivery.depths().values()), timeout, "every lane is empty")

    def dropped(self, reason: str) -> int:
        """How many events were dropped for this reason since the rig was made."""
        return sum(number for _, why, number in self.drops if why == reason)

    def close(self) -> None:
        self.delivery.drain(0)
        self.dispatcher.close()


def attach(delivery: Delivery, loop: asyncio.AbstractEventLoop) -> None:
    """Have a loop that runs on another thread deliver."""

    async def on_loop() -> None:
        delivery.attach(loop)

    asyncio.run_coroutine_threadsafe(on_loop(), loop).result(5)


@contextlib.contextmanager
def event_loop() -> Iterator[asyncio.AbstractEventLoop]:
    """An event loop that runs on a thread of its own."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        yield loop
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(5)
        loop.close()


@contextlib.contextmanager
def rig(limits: LaneLimits | None = None, loop: asyncio.AbstractEventLoop | None = None) -> Iterator[Rig]:
    made = Rig(limits, loop)
    count = telemetry.dropped.inc

    def note(*labels: str, by: float = 1) -> None:
        made.drops.append((labels[0], labels[1], int(by)))
        count(*labels, by=by)

    telemetry.dropped.inc = note  # type: ignore[method-assign]
    try:
        yield made
    finally:
        made.close()
        telemetry.dropped.inc = count  # type: ignore[method-assign]
