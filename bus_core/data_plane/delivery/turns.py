"""Delivery: the turns of lanes, a part of the scheduler. It chooses the lane that may start its next event.

Pure state, like the scheduler. The rules, each of which the model knows:
  * lanes take turns by deficit round robin over bytes; an unhealthy lane (no recent success) has one attempt in flight,
    and all unhealthy lanes together have at most `max_probes`;
  * there are two rings. The loop ring has small events of lanes with an idle connection, while the loop executor has
    room. The thread ring has everything else. A lane is in one of them; a take that meets it in the wrong one moves it;
  * failing lanes are throttled: their attempts together cost at most `FAILING_SHARE` of a core.
"""

from __future__ import annotations

from collections import deque

from bus_core.data_plane.delivery.lane import EVENT_COST, RECENT, Lane, QueuedEvent

QUANTUM = 16 * 1024
"""How much a lane may send in its turn, in bytes and event costs."""

LOOP_BYTES = 64 * 1024
"""An event of up to this many bytes fits into a socket's buffer at once, so that the event loop never waits."""

FAILING_SHARE = 0.05
"""The share of one core for all failing lanes together. Without it a subscriber that resets each connection at once
keeps a thread, and with it the interpreter, busy all the time: the p99 of its neighbours rose from 0.3 to 12 ms."""


class Turns:
    """See the module's first lines. Not thread-safe.

    Args:
        max_probes: how many attempts the unhealthy lanes may have in flight together.

    Attributes:
        probes: how many attempts the unhealthy lanes have in flight.
    """

    def __init__(self, max_probes: int) -> None:
        self.probes = 0
        self._max_probes = max_probes
        self._thread_ring: deque[Lane] = deque()
        self._loop_ring: deque[Lane] = deque()
        self._loop_open = False  # whether the loop executor takes events
        self._parked: deque[Lane] = deque()  # unhealthy lanes that wait for a probe to end
        self._throttled: deque[Lane] = deque()  # failing lanes that wait for their share
        self._throttled_until = float("-inf")

    def take_for_thread(self, now: float) -> QueuedEvent | None:
        """The next event that needs a thread, now in flight; None if none may start."""
        ring = self._thread_ring
        while ring or self._unpark():
            lane = ring[0]
            unhealthy = lane.is_unhealthy(now)
            if not lane.may_start(unhealthy):
                self._leave(ring)
                self._unpark()  # the lane may have been parked, and its probe is unused
                continue
            if unhealthy and self.probes >= self._max_probes:
                self._parked.append(ring.popleft())
                continue
            cost = lane.health.failure_cpu_cost
            if cost and now < self._throttled_until:
                self._throttled.append(ring.popleft())
                continue
            if self._suits_loop(lane, unhealthy):
                self._loop_ring.append(ring.popleft())
                continue
            event = self._start(ring, lane, now)
            if event is None:
                continue
            if unhealthy:
                event.probe = True
                self.probes += 1
            if cost:
                self._throttled_until = now + cost / FAILING_SHARE
            return event
        return None

    def take_for_loop(self, now: float, most: int) -> list[QueuedEvent]:
        """The next events for the loop executor, now in flight: at most so many, none when none may start."""
        ring = self._loop_ring
        taken: list[QueuedEvent] = []
        while ring and len(taken) < most:
            lane = ring[0]
            unhealthy = now - lane.health.last_success > RECENT
            if not lane.may_start(unhealthy):
                self._leave(ring)
            elif not self._suits_loop(lane, unhealthy):
                self._thread_ring.append(ring.popleft())
            elif (event := self._start(ring, lane, now)) is not None:
                taken.append(event)
        return taken

    def open_loop(self, is_open: bool) -> None:
        """Start or stop giving events to the loop executor."""
        self._loop_open = is_open
        if not is_open:
            self._thread_ring.extend(self._loop_ring)
            self._loop_ring.clear()

    @property
    def has_thread_work(self) -> bool:
        """Whether there may be work for a thread."""
        return bool(self._thread_ring)

    @property
    def has_loop_work(self) -> bool:
        """Whether there may be work for the loop executor. May be read without the lock."""
        return bool(self._loop_ring)

    def offer(self, lane: Lane, now: float) -> None:
        """Give a lane its turn, with a turn's quantum, if it may start and is in no ring."""
        if lane.in_ring:
            return
        unhealthy = lane.is_unhealthy(now)
        if lane.may_start(unhealthy):
            lane.in_ring = True
            lane.deficit = QUANTUM
            (self._loop_ring if self._suits_loop(lane, unhealthy) else self._thread_ring).append(lane)

    @property
    def next_unthrottled(self) -> float | None:
        """When the next throttled lane gets its turn; None if none waits."""
        return self._throttled_until if self._throttled else None

    def release_throttled(self, now: float) -> int:
        """Give the next throttled lane its turn, if it is due. Returns the number of lanes."""
        if not self._throttled or now < self._throttled_until:
            return 0
        self._thread_ring.append(self._throttled.popleft())
        return 1

    def end_probe(self) -> None:
        self.probes -= 1
        self._unpark()

    def _start(self, ring: deque[Lane], lane: Lane, now: float) -> QueuedEvent | None:
        """The next event of the first lane of a ring; None if the lane has had its turn."""
        ready = lane.ready
        event = ready[0]
        cost = event.size + EVENT_COST
        if lane.deficit < cost:
            lane.deficit += QUANTUM
            ring.rotate(-1)
            return None
        lane.deficit -= cost
        ready.popleft()
        if not ready:
            self._leave(ring)
        lane.in_flight += 1
        event.attempts += 1
        if not event.first_attempt:
            event.first_attempt = now
        return event

    def _leave(self, ring: deque[Lane]) -> None:
        ring.popleft().in_ring = False

    def _suits_loop(self, lane: Lane, unhealthy: bool) -> bool:
        return (
            lane.health.has_idle_connection and self._loop_open and not unhealthy and lane.ready[0].size <= LOOP_BYTES
        )

    def _unpark(self) -> bool:
        if not self._parked or self.probes >= self._max_probes:
            return False
        self._thread_ring.append(self._parked.popleft())
        return True
