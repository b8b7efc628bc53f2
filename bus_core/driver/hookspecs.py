"""Driver contract: the hooks that a driver implements, and the context that the host hands to it.

Each method is a pluggy hook. An implementation carries `@hookimpl` and may take fewer arguments than are listed here.
Returning means done; raising means failed. `bus_core.model.errors` says what each error leads to.
"""

from __future__ import annotations

import contextlib
import enum
import threading
from collections.abc import Awaitable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Protocol

import pluggy
from pydantic import BaseModel
from structlog.stdlib import BoundLogger

from bus_core.model.headers import ForwardedHeaders
from bus_core.model.message import Message
from bus_core.model.parameters import ResolvedParameters
from bus_core.model.references import BusReference, ChannelReference, SubscriptionReference
from bus_core.model.resources import AnyBus, Channel, Subscription

PROJECT = "bus_core"
API = 1
"""The version of this contract. A driver class says `api = 1`; the host refuses any other."""

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


class ResourceHooks(Protocol):
    """The four hooks of a resource's way. This is the one place where their arguments are declared.

    They are plain functions, idempotent, called on the monitor's threads, and serialised per channel.
    """

    @hookspec(firstresult=True)
    def provision(self, channel: Channel, parameters: ResolvedParameters) -> None:
        """Make the assets outside the process that back the channel. Runs only on the leader of the provisioners.

        Raises:
            TemporaryError: requeued after its `retry_after`.
            PermanentError: the channel's condition turns False; it is not requeued.
        """

    @hookspec(firstresult=True)
    def unprovision(self, channel: Channel, parameters: ResolvedParameters) -> None:
        """Remove what `provision` made. Runs only on the leader, perhaps in a process that never provisioned."""

    @hookspec(firstresult=True)
    def subscribe(
        self,
        channel: Channel,
        subscription: Subscription,
        parameters: ResolvedParameters,
        channel_parameters: ResolvedParameters,
    ) -> None:
        """Start carrying the channel's events to the subscription. Runs in every worker, and again when the
        subscriber, the parameters or the bus change. Returns once every event accepted from then on will arrive."""

    @hookspec(firstresult=True)
    def unsubscribe(self, channel: Channel, subscription: Subscription) -> None:
        """Stop carrying events to a subscription that was deleted. Not called on shutdown. Must be safe in N workers,
        and also where this process never called `subscribe`."""


class Driver(ResourceHooks, Protocol):
    """A bus driver: the resource hooks, and `receive`, which is called concurrently."""

    @hookspec(firstresult=True)
    def receive(
        self, channel: ChannelReference, message: Message, parameters: ResolvedParameters
    ) -> Awaitable[None] | None:
        """Take one event. A plain `def` runs on the worker's thread pool, an `async def` on its event loop.
        Returning answers the sender 202: from then on the event must not be lost by this driver's doing.

        Raises:
            MessageTooLargeError: 413. InvalidMessageError: 400. TemporaryError, BusyError: 503 + Retry-After.
            Anything else: 500.
        """


class BusSyncing(Protocol):
    """Optional: a driver that wants to know when its Bus resource changes."""

    @hookspec(firstresult=True)
    def sync_bus(self, bus: AnyBus) -> None:
        """The Bus was read for the first time, or has changed. Called before any other resource hook."""


class Outcome(enum.Enum):
    """How a delivery ended for good. After each of these a durable driver may commit."""

    DELIVERED = "delivered"
    DEAD_LETTERED = "dead_lettered"
    REJECTED = "rejected"
    """A final refusal, and no dead-letter sink: counted and logged with its reason."""


class Publish(Protocol):
    """To all subscriptions of a channel, or to none."""

    def __call__(self, channel: ChannelReference, message: Message) -> None:
        """Never blocks; safe from any thread and from the event loop.

        Raises:
            BusyError: some lane is full; nothing was queued for anyone.
        """


class Submit(Protocol):
    """To one subscription."""

    def __call__(
        self, subscription: SubscriptionReference, message: Message, *, key: str | None = None
    ) -> Future[Outcome]:
        """Never blocks; safe from any thread and from the event loop. Events of one `key` stay in order.

        The Future ends with an `Outcome`; with `UnavailableError` (tries spent, no sink) or cancelled, the event is
        not settled and the driver submits it again later. Its callbacks may run on the event loop: they must not block.

        Raises:
            BusyError: the lane is full or stalled; pause, and submit again later.
            UnknownSubscriptionError: there is no such subscription in this process.
        """


class Report(Protocol):
    """Says how a subscription is, beyond what its hooks raise."""

    def __call__(self, subscription: SubscriptionReference, reason: str = "", message: str = "") -> None:
        """Never blocks; safe from any thread. It stands until it is replaced, taken back or the subscription is gone.

        Args:
            subscription: whose condition `Dispatching`, and with it `Ready`, turns False.
            reason: one word in CamelCase, such as `Blocked`; empty: all is well again.
            message: for people: what is the matter and where.
        """


# wide: each attribute is a part of the contract that drivers use by name.
@dataclass(frozen=True, slots=True)
class DriverContext:
    """What the host hands to `Driver.__init__`.

    Attributes:
        bus: the bus this process serves.
        settings: an instance of the driver's own settings class, or None if it declares none.
        logger: bound to the bus and the driver's name.
        exit_stack: closed once at shutdown, after the lanes have drained: commit, flush, close.
        stopping: set when the driver should take no more in.
        publish: see `Publish`.
        submit: see `Submit`.
        report: see `Report`.
        forwarded: which headers of an event travel on, for a driver that reads events which others wrote.
    """

    bus: BusReference
    settings: Any
    logger: BoundLogger
    exit_stack: contextlib.ExitStack
    stopping: threading.Event
    publish: Publish
    submit: Submit
    report: Report
    forwarded: ForwardedHeaders


class DriverSettings(BaseModel):
    """The base of a driver's settings class: one pydantic field per setting, `SecretStr` for secrets.

    Read from `--set DRIVER.FIELD=VALUE`, the environment `DRIVER_FIELD`, a file `DRIVER_FIELD` in `--secrets-dir`, the
    section `DRIVER:` of the settings file, then the field's default; the first of these wins. A field of type
    `dict[str, str]` takes `--set DRIVER.FIELD.ANY.KEY=VALUE`.
    """

    model_config = {"extra": "forbid", "frozen": True}
