"""A lane: one subscription's queue, with its bounds, and the record of one event in it."""

from __future__ import annotations

import enum
from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from bus_core.driver.hookspecs import Outcome
from bus_core.model.message import Message
from bus_core.model.references import ChannelReference, SubscriptionReference
from bus_core.model.specs import DeliverySpec

RECENT = 2.0
"""A success is recent for this many seconds; without one a lane is held to one exchange at a time."""

EVENT_COST = 1024
"""What an event costs beside its bytes, in the units in which lanes take turns."""


@dataclass(frozen=True, slots=True)
class LaneLimits:
    """Bounds of one lane.

    Attributes:
        events: how many it holds, those in flight and waiting for a retry included.
        bytes: how many bytes of headers and payload they hold together.
        in_flight: how many exchanges at once.
        stall_after: seconds without a success after which a full lane sheds instead of refusing the publisher.
    """

    events: int = 10_000
    bytes: int = 32 << 20
    in_flight: int = 8
    stall_after: float = 30.0


@dataclass(frozen=True, slots=True)
class Target:
    """Where a subscription's events go.

    Attributes:
        channel: the channel they come from.
        subscription: whose they are.
        subscriber: a destination, or empty: the event itself goes to `reply_to`.
        reply_to: a destination for replies, or empty.
        spec: the delivery rules, every field said except perhaps `dead_letter_sink`.
    """

    channel: ChannelReference
    subscription: SubscriptionReference
    subscriber: str
    reply_to: str
    spec: DeliverySpec


class Leg(enum.IntEnum):
    """Which exchange an item is about."""

    EVENT = 0
    REPLY = 1
    LETTER = 2


class Item:
    """One event in one lane. Its payload is shared with the other lanes that hold the same event."""

    __slots__ = (
        "attempts",
        "enqueued",
        "first",
        "future",
        "key",
        "lane",
        "leg",
        "message",
        "parcel",
        "size",
        "source",
        "suspect",
    )

    def __init__(
        self,
        lane: Lane,
        message: Message,
        parcel: Any,
        size: int,
        enqueued: float,
        key: str | None = None,
        future: Future[Outcome] | None = None,
    ) -> None:
        self.lane = lane
        self.source = lane  # the subscription's lane, also after the item has moved to a sink's
        self.message = message
        self.parcel = parcel
        self.size = size
        self.enqueued = enqueued
        self.key = key
        self.future = future
        self.leg = Leg.EVENT
        self.attempts = 0
        self.first = 0.0
        self.suspect = False  # in flight although its lane had no recent success


class Lane:
    """The queue of one subscription or of one dead-letter sink. Not thread-safe: the board's owner holds a lock."""

    def __init__(self, name: str, limits: LaneLimits, target: Target | None, now: float) -> None:
        self.name = name
        self.limits = limits
        self.target = target
        self.sink: str = ""
        self.ready: deque[Item] = deque()
        self.keys: dict[str, deque[Item]] = {}
        self.events = 0
        self.bytes = 0
        self.in_flight = 0
        self.deficit = 0
        self.in_ring = False
        self.closed = False
        self.warm = False  # its last exchange left a connection open that needs no thread
        self.last_success = float("-inf")
        self.quiet_since = now  # the last moment at which it was empty or had a success
        self.toll = 0.0  # CPU seconds of its last exchange if that failed, else 0
        self.trouble = ""  # why events were given up since the last success
        self.told = False  # whether `trouble` has been reported
        self.routes: dict[str, Any] = {}  # destinations made ready; emptied by a failure, so that it is routed anew
        self.counts: dict[tuple[str, ...], int] = {}
        self.shown = 0  # the depth that telemetry was last told

    def fits(self, size: int) -> bool:
        """An event larger than the whole bound still fits into an empty lane, or it could never be delivered."""
        limits = self.limits
        return self.events < limits.events and (self.bytes + size <= limits.bytes or not self.events)

    def is_suspect(self, now: float) -> bool:
        return now - self.last_success > RECENT

    def is_stalled(self, now: float) -> bool:
        """It has had work, and no success, for `stall_after` seconds."""
        return self.events > 0 and now - self.quiet_since >= self.limits.stall_after

    def may_start(self, now: float) -> bool:
        """Whether another exchange may begin now."""
        if not self.ready or self.in_flight >= (1 if self.is_suspect(now) else self.limits.in_flight):
            return False
        # Replies can be larger than the events they answer: over the bound no event is begun that could bring more.
        return self.bytes <= self.limits.bytes or self.ready[0].leg is not Leg.EVENT or not self.in_flight

    def count(self, *what: str) -> None:
        """Add one to a counter; the owner flushes them to telemetry now and then (an increment there costs 1.5 µs)."""
        self.counts[what] = self.counts.get(what, 0) + 1
