"""A model of the scheduler that shares nothing with it: plain lists, and the rules as the documentation says them."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import strategies as st

from bus_core.data_plane.delivery.lane import RECENT, LaneLimits, QueuedEvent
from bus_core.data_plane.delivery.scheduler import Scheduler
from bus_core.data_plane.delivery.turns import LOOP_BYTES
from bus_core.data_plane.dispatch import Encoded

LIMITS = LaneLimits(events=6, bytes=40_000, in_flight=3, stall_after=5.0)
MAX_PROBES = 2
SIZES = st.sampled_from([10, 256, 9_000, 30_000, 50_000, LOOP_BYTES + 1])
KEYS = st.sampled_from(["a", "b", None])
LANES = st.integers(0, 2)
SINK = 3


def of_size(size: int) -> Encoded:
    """An encoded event that says it has this size, without the bytes."""
    encoded = Encoded(b"", b"")
    encoded.size = size
    return encoded


def take_for_loop(scheduler: Scheduler, now: float) -> QueuedEvent | None:
    """The next event for the loop executor."""
    return next(iter(scheduler.take_for_loop(now, 1)), None)


@dataclass
class Event:
    """What the model knows of one event in one lane."""

    number: int
    size: int
    key: str | None = None
    state: str = "ready"  # or behind, flying, waiting
    due: float = 0.0
    probe: bool = False  # in flight although its lane had no recent success
    real: QueuedEvent | None = None


@dataclass
class Model:
    """One lane: its events in the order of their arrival."""

    events: list[Event] = field(default_factory=list)
    last_success: float = float("-inf")
    quiet_since: float = 0.0
    grown: bool = False
    orphans: list[Event] = field(default_factory=list)  # in flight when the lane was closed
    closed: bool = False

    @property
    def bytes(self) -> int:
        return sum(event.size for event in self.events)

    def count(self, state: str) -> int:
        return sum(event.state == state for event in self.events)

    def fits(self, size: int) -> bool:
        if not self.events:
            return True
        return len(self.events) < LIMITS.events and self.bytes + size <= LIMITS.bytes

    def stalled(self, now: float) -> bool:
        return bool(self.events) and now - self.quiet_since >= LIMITS.stall_after

    def unhealthy(self, now: float) -> bool:
        return now - self.last_success > RECENT

    def admit(self, event: Event, now: float) -> None:
        if not self.events:
            self.quiet_since = now
            self.grown = False
        if event.key is not None and any(other.key == event.key for other in self.events):
            event.state = "behind"
        self.events.append(event)

    def leave(self, event: Event, now: float) -> None:
        self.events.remove(event)
        if not self.events:
            self.quiet_since = now
        if event.key is not None:
            following = next((other for other in self.events if other.key == event.key), None)
            if following is not None:
                assert following.state == "behind"
                following.state = "ready"
