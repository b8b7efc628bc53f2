"""Driver contract: the hooks that a driver implements, and the context that it gets from the host.

Each method is a pluggy hook. An implementation is marked `@hookimpl`, and may take fewer arguments than the hook lists.
A hook that returns has succeeded; a hook that raises has failed. `bus_core.model.errors` lists each error's effect.
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
"""The version of this contract. A driver class declares `api = 1`; the host refuses any other version."""

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


class ResourceHooks(Protocol):
    """The four hooks for channels and subscriptions. Their arguments are declared here only.

    Write them as plain, idempotent functions. The monitor calls them on its threads, one at a time for each channel.
    """

    @hookspec(firstresult=True)
    def provision(self, channel: Channel, parameters: ResolvedParameters) -> None:
        """Create the assets that back the channel, such as a topic. Runs only on the leader of the provisioners.

        Raises:
            TemporaryError: the host calls the hook again after `retry_after` seconds.
            PermanentError: the channel's condition turns False; the host calls the hook again when the channel changes.
        """

    @hookspec(firstresult=True)
    def unprovision(self, channel: Channel, parameters: ResolvedParameters) -> None:
        """Remove the assets of the channel. Runs only on the leader, which may never have called `provision`."""

    @hookspec(firstresult=True)
    def subscribe(
        self,
        channel: Channel,
        subscription: Subscription,
        parameters: ResolvedParameters,
        channel_parameters: ResolvedParameters,
    ) -> None:
        """Start to deliver the channel's events to the subscription. Runs in every worker, and again when `subscriber`,
        `replyTo`, delivery settings or parameters change. After it returns, every newly accepted event must arrive."""

    @hookspec(firstresult=True)
    def unsubscribe(self, channel: Channel, subscription: Subscription) -> None:
        """Stop delivering events to a deleted subscription. Not called on shutdown. Several workers may call it, also
        a worker that never called `subscribe`."""


class Driver(ResourceHooks, Protocol):
    """A bus driver: the resource hooks and `receive`."""

    @hookspec(firstresult=True)
    def receive(
        self, channel: ChannelReference, message: Message, parameters: ResolvedParameters
    ) -> Awaitable[None] | None:
        """Accept one event. A plain `def` runs on the worker's thread pool, an `async def` on its event loop. Called
        concurrently. When it returns, the sender gets 202, and the driver is responsible for the event.

        Raises:
            MessageTooLargeError: the sender gets 413. InvalidMessageError: 400. TemporaryError: 503 with Retry-After.
            Anything else: 500.
        """


class BusSyncing(Protocol):
    """An optional hook: the driver learns when its Bus resource changes."""

    @hookspec(firstresult=True)
    def sync_bus(self, bus: AnyBus) -> None:
        """Apply a Bus that is new or has changed. Called before any other resource hook."""


class Outcome(enum.Enum):
    """The final result of a delivery. A durable driver may commit the event after each of them."""

    DELIVERED = "delivered"
    DEAD_LETTERED = "dead_lettered"
    REJECTED = "rejected"
    """The subscriber refused the event, and there is no dead-letter sink. The host counts and logs it."""


class Publish(Protocol):
    """Queues an event for all subscriptions of a channel, or for none."""

    def __call__(self, channel: ChannelReference, message: Message) -> None:
        """Never blocks; safe from any thread and from the event loop.

        Raises:
            BusyError: a lane is full; the event was queued for no subscription.
        """


class Submit(Protocol):
    """Queues an event for one subscription."""

    def __call__(
        self, subscription: SubscriptionReference, message: Message, *, key: str | None = None
    ) -> Future[Outcome]:
        """Never blocks; safe from any thread and from the event loop. Events of one `key` stay in order.

        The Future's result is an `Outcome`. If it raises `UnavailableError` (all tries failed, no sink) or is
        cancelled, the driver must submit the event again. Its callbacks may run on the event loop: they must not block.

        Raises:
            BusyError: the lane is full or stalled; submit again later.
            UnknownSubscriptionError: this process has no such subscription.
        """


class Report(Protocol):
    """Reports a problem of a subscription outside of its hooks."""

    def __call__(self, subscription: SubscriptionReference, reason: str = "", message: str = "") -> None:
        """Never blocks; safe from any thread. A report holds until the next one, or until the subscription is deleted.

        Args:
            subscription: its conditions `Dispatching` and `Ready` turn False.
            reason: one word in CamelCase, such as `Blocked`; empty: the problem is solved.
            message: a sentence for people that names the problem and its place.
        """


# wide: drivers use each attribute by its name.
@dataclass(frozen=True, slots=True)
class DriverContext:
    """The argument of `Driver.__init__`.

    Attributes:
        bus: the bus this process serves.
        settings: an instance of the driver's own settings class, or None if it declares none.
        logger: bound to the bus and the driver's name.
        exit_stack: closed once at shutdown, after the lanes have drained. Register commit, flush and close here.
        stopping: set at shutdown. The driver then reads no more events from its broker.
        publish: see `Publish`.
        submit: see `Submit`.
        report: see `Report`.
        forwarded: selects the headers to forward, for a driver that reads events of other programs.
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

    The places of a value, highest first: `--set DRIVER.FIELD=VALUE`, the environment variable `DRIVER_FIELD`, a file
    `DRIVER_FIELD` in `--secrets-dir`, the section `DRIVER:` of the settings file, the field's default. A field of type
    `dict[str, str]` takes `--set DRIVER.FIELD.ANY.KEY=VALUE`.
    """

    model_config = {"extra": "forbid", "frozen": True}
