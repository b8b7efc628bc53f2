"""Delivery: a lane (the bounded queue of one subscription or of one dead-letter sink) and the events in it."""

from __future__ import annotations

import enum
from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass

from bus_core.data_plane.dispatch import Encoded, Route
from bus_core.driver.hookspecs import Outcome
from bus_core.model.message import Message
from bus_core.model.references import ChannelReference, SubscriptionReference
from bus_core.model.specs import DeliverySpec

RECENT = 2.0
"""A success is recent for this many seconds. A lane without a recent success is unhealthy: one attempt at a time."""

EVENT_COST = 1024
"""The cost of an event in addition to its bytes, in the unit of the lanes' turns."""


@dataclass(frozen=True, slots=True)
class LaneLimits:
    """Bounds of one lane.

    Attributes:
        events: the limit of events, including those in flight and those waiting for a retry.
        bytes: the limit of their headers and payloads together.
        in_flight: the limit of concurrent attempts.
        stall_after: seconds without a success after which a full lane sheds instead of refusing the publisher.
    """

    events: int = 10_000
    bytes: int = 32 << 20
    in_flight: int = 8
    stall_after: float = 30.0


@dataclass(frozen=True, slots=True)
class Target:
    """The destinations and rules of a subscription's events.

    Attributes:
        channel: the channel they come from.
        subscription: the subscription they are for.
        subscriber: a destination, or empty: the event itself goes to `reply_to`.
        reply_to: a destination for replies, or empty.
        spec: the delivery rules, every field set except perhaps `dead_letter_sink`.
    """

    channel: ChannelReference
    subscription: SubscriptionReference
    subscriber: str
    reply_to: str
    spec: DeliverySpec


class Leg(enum.IntEnum):
    """What an attempt sends: the event, the reply to it, or its dead letter."""

    EVENT = 0
    REPLY = 1
    DEAD_LETTER = 2


_EVENT = Leg.EVENT  # an attribute of an enum costs 40 ns in Python 3.11, and each event reads several


class QueuedEvent:
    """One event in one lane. Its payload is shared with the other lanes that hold the same event.

    Only the scheduler writes to it, with the engine's lock held. The executor of its attempt may read it.

    Attributes:
        lane: the lane that holds it.
        source: the subscription's lane, also after the event has moved to a sink's.
        message: the event, or the reply or dead letter that it has become.
        encoded: the message as bytes of a request.
        size: bytes of `encoded`, as counted in the lane's bounds.
        key: events with the same key are delivered one after the other; None for any order.
        future: receives the outcome of a submitted event; None for a published one.
        leg: what the next attempt sends.
        attempts: attempts of this leg so far.
        first_attempt: start of the first attempt, by the monotonic clock; 0.0 before it.
        probe: in flight although its lane is unhealthy.
    """

    __slots__ = (
        "attempts",
        "encoded",
        "first_attempt",
        "future",
        "key",
        "lane",
        "leg",
        "message",
        "probe",
        "size",
        "source",
    )

    def __init__(
        self,
        lane: Lane,
        message: Message,
        encoded: Encoded,
        key: str | None = None,
        future: Future[Outcome] | None = None,
    ) -> None:
        self.lane = self.source = lane
        self.message = message
        self.encoded = encoded
        self.size = encoded.size
        self.key = key
        self.future = future
        self.leg = _EVENT
        self.attempts = 0
        self.first_attempt = 0.0
        self.probe = False


class LaneHealth:
    """The recent results of a lane's attempts. Only the scheduler writes to it.

    Attributes:
        last_success: by the monotonic clock; minus infinity before the first.
        quiet_since: the last moment at which the lane was empty or had a success.
        failure_cpu_cost: CPU seconds of its last attempt if that failed, else 0.
        has_idle_connection: its last attempt left a connection open that the loop executor can use.
    """

    __slots__ = ("failure_cpu_cost", "has_idle_connection", "last_success", "quiet_since")

    def __init__(self, now: float) -> None:
        self.last_success = float("-inf")
        self.quiet_since = now
        self.failure_cpu_cost = 0.0
        self.has_idle_connection = False


class LaneStats:
    """Counts of a lane since the last flush to telemetry, and the last report.

    Guarded by the engine's lock. Plain integers, because an increment in telemetry costs 1.5 µs.

    Attributes:
        dropped: by reason.
        details: the last error behind a reason.
        failure: why events were given up since the last success; empty if none were.
        failure_reported: whether `failure` has been reported to the subscriber report.
        depth_shown: the depth that telemetry shows.
    """

    __slots__ = (
        "dead_lettered",
        "delivered",
        "depth_shown",
        "details",
        "dropped",
        "failure",
        "failure_reported",
        "refusals",
        "retried",
    )

    def __init__(self) -> None:
        self.delivered = self.retried = self.dead_lettered = self.refusals = 0
        self.dropped: dict[str, int] = {}
        self.details: dict[str, str] = {}
        self.failure = ""
        self.failure_reported = False
        self.depth_shown = 0

    @property
    def has_counts(self) -> bool:
        """Whether anything was counted since the last flush."""
        return bool(self.delivered or self.retried or self.dead_lettered or self.refusals or self.dropped)

    def drop(self, reason: str, detail: str = "") -> None:
        """Count an event that is given up."""
        self.dropped[reason] = self.dropped.get(reason, 0) + 1
        if detail:
            self.details[reason] = detail


# wide: one record per lane, read several times for each event; splitting it costs a look-up per part
class Lane:
    """The queue of one subscription or of one dead-letter sink. Not thread-safe: guarded by the engine's lock.

    The scheduler is the only writer of the queue's state, and the registry sets `target`.

    Args:
        name: as metrics and logs show it.
        limits: its bounds.
        target: where the subscription's events go; None for a sink.
        now: the monotonic clock.
        sink: a sink's destination; empty for a subscription.
    """

    def __init__(self, name: str, limits: LaneLimits, target: Target | None, now: float, sink: str = "") -> None:
        self.name = name
        self.limits = limits
        self.target = target
        self.sink = sink
        self.health = LaneHealth(now)
        self.stats = LaneStats()
        self.routes: dict[str, Route] = {}  # by destination; filled and cleared by the attempts alone
        self.ready: deque[QueuedEvent] = deque()
        self.keys: dict[str, deque[QueuedEvent]] = {}  # the events behind the first of each key
        self.events = 0
        self.bytes = 0
        self.in_flight = 0
        self.deficit = 0
        self.in_ring = False
        self.closed = False

    def fits(self, size: int) -> bool:
        """Whether there is room for an event of this size. An event larger than the bound fits into an empty lane:
        otherwise it could never be delivered."""
        limits = self.limits
        return self.events < limits.events and (self.bytes + size <= limits.bytes or not self.events)

    def is_unhealthy(self, now: float) -> bool:
        """Whether the lane has had no recent success."""
        return now - self.health.last_success > RECENT

    def is_stalled(self, now: float) -> bool:
        """Whether the lane has had work, but no success, for `stall_after` seconds."""
        return self.events > 0 and now - self.health.quiet_since >= self.limits.stall_after

    def may_start(self, unhealthy: bool) -> bool:
        """Whether another attempt may begin now."""
        ready = self.ready
        if not ready or self.in_flight >= (1 if unhealthy else self.limits.in_flight):
            return False
        # Replies can be larger than their events, so a lane over its bound begins no event that could have a reply.
        return self.bytes <= self.limits.bytes or not self.in_flight or ready[0].leg is not Leg.EVENT
