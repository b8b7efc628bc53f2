"""Delivery: the scheduler. It holds the events and retries of all lanes. Pure state: no thread, no clock, no HTTP.

A model is held against it with injected time (tests/delivery/model.py). It is not thread-safe: the engine calls it with
its lock held. It is the only writer of the state of lanes and queued events.

The rules, each of which the model knows:
  * a lane holds at most `events` events and `bytes` bytes, whether they are ready, in flight or waiting for a retry;
  * publish puts an event into every lane of the channel or into none; a full lane that is stalled is shed instead;
  * lanes take turns (turns.py);
  * events of one key are in flight one after the other, a retry keeps the key.
"""

from __future__ import annotations

import heapq
import itertools
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future

from bus_core.data_plane.delivery.lane import Lane, Leg, QueuedEvent
from bus_core.data_plane.delivery.turns import Turns
from bus_core.data_plane.dispatch import Encoded
from bus_core.driver.hookspecs import Outcome
from bus_core.model.errors import BusyError
from bus_core.model.message import Message


class Scheduler(Turns):
    """See the module's first lines.

    Args:
        max_probes: how many attempts the unhealthy lanes may have in flight together.

    Attributes:
        events: how many events all lanes hold.
    """

    def __init__(self, max_probes: int) -> None:
        super().__init__(max_probes)
        self.events = 0
        self._waiting: list[tuple[float, int, QueuedEvent]] = []  # a heap by due time
        self._sequence = itertools.count()

    def publish(self, lanes: Sequence[Lane], message: Message, encoded: Encoded, now: float) -> list[Lane]:
        """Queue an event in every lane, or in none.

        Returns:
            The stalled lanes that were full: their copies were shed, and the caller settles those.

        Raises:
            BusyError: a lane that still makes progress is full; nothing was queued.
        """
        size = encoded.size
        shed: list[Lane] = []
        for lane in lanes:
            if not lane.fits(size):
                if not lane.is_stalled(now):
                    lane.stats.refusals += 1
                    raise BusyError(f"the lane of subscription {lane.name} is full ({lane.events} events)")
                shed.append(lane)
        for lane in lanes:
            if lane not in shed:
                self._admit(QueuedEvent(lane, message, encoded), now)
        return shed

    def submit(
        self, lane: Lane, message: Message, encoded: Encoded, now: float, key: str | None, future: Future[Outcome]
    ) -> None:
        """Queue an event in one lane.

        Raises:
            BusyError: the lane is full or stalled.
        """
        if lane.is_stalled(now):
            raise BusyError(f"the lane of subscription {lane.name} is stalled")
        if not lane.fits(encoded.size):
            raise BusyError(f"the lane of subscription {lane.name} is full ({lane.events} events)")
        self._admit(QueuedEvent(lane, message, encoded, key, future), now)

    def become_dead_letter(
        self, event: QueuedEvent, sink: Lane, message: Message, encoded: Encoded, now: float
    ) -> None:
        """Queue an event that has left its own lane in a sink's. The caller has asked `sink.fits`."""
        event.lane, event.message, event.encoded, event.size = sink, message, encoded, encoded.size
        event.leg, event.attempts, event.key = Leg.DEAD_LETTER, 0, None
        self._admit(event, now)

    def become_reply(self, event: QueuedEvent, message: Message, encoded: Encoded) -> None:
        """An event in flight was answered with a reply: from here on the event is its reply, still in flight. Whatever
        fails from now on, the subscriber does not get the event again."""
        event.leg, event.message, event.encoded, event.attempts = Leg.REPLY, message, encoded, 1
        self.grow(event, encoded.size)

    def grow(self, event: QueuedEvent, size: int) -> None:
        """Count an event in flight with another size: it now holds its reply."""
        event.lane.bytes += size - event.size
        event.size = size

    def put_back(self, event: QueuedEvent, now: float) -> None:
        """Put back an event for which the loop executor has no connection: it is next in its lane, for a thread."""
        lane = event.lane
        lane.health.has_idle_connection = False
        lane.in_flight -= 1
        event.attempts -= 1
        lane.ready.appendleft(event)
        self.offer(lane, now)

    def set_idle_connection(self, lane: Lane, is_open: bool) -> None:
        """Whether the lane's last attempt left a connection open that the loop executor can use."""
        lane.health.has_idle_connection = is_open

    def charge(self, lane: Lane, cpu_cost: float) -> None:
        """The lane's last attempt failed, and cost so many seconds of CPU time; 0.0 ends its throttling."""
        lane.health.failure_cpu_cost = cpu_cost

    def retry(self, event: QueuedEvent, due: float, now: float) -> None:
        """Keep the event of a failed attempt, with its place in the bounds and its key; it is ready again at `due`."""
        event.lane.in_flight -= 1
        if event.probe:
            event.probe = False
            self.end_probe()
        heapq.heappush(self._waiting, (due, next(self._sequence), event))
        self.offer(event.lane, now)

    def finish(self, event: QueuedEvent, now: float, *, success: bool = False) -> None:
        """Remove an event in flight from its lane."""
        lane = event.lane
        lane.in_flight -= 1
        if event.probe:
            event.probe = False
            self.end_probe()
        if success:
            health = lane.health
            health.last_success = health.quiet_since = now
            health.failure_cpu_cost = 0.0
        self._remove(event, now)

    def release_due(self, now: float) -> int:
        """Make due retries ready. Returns their number."""
        released = self.release_throttled(now)
        waiting = self._waiting
        while waiting and waiting[0][0] <= now:
            event = heapq.heappop(waiting)[2]
            if event.lane.closed:
                continue
            # A retry goes first: it is the oldest of its key, and it frees its place the sooner.
            event.lane.ready.appendleft(event)
            self.offer(event.lane, now)
            released += 1
        return released

    @property
    def next_due(self) -> float | None:
        """When to call `release_due` next; None if no retry waits."""
        retry = self._waiting[0][0] if self._waiting else None
        unthrottled = self.next_unthrottled
        if retry is None or unthrottled is None:
            return unthrottled if retry is None else retry
        return min(retry, unthrottled)

    def withdraw(self, later_than: float, now: float) -> list[QueuedEvent]:
        """Remove and return the retries that are due later than this."""
        out = [entry[2] for entry in self._waiting if entry[0] > later_than and not entry[2].lane.closed]
        self._waiting = [entry for entry in self._waiting if entry[0] <= later_than]
        heapq.heapify(self._waiting)
        for event in out:
            self._remove(event, now)
        return out

    def close(self, lane: Lane, now: float) -> list[QueuedEvent]:
        """Close a lane, and remove and return its events that are not in flight. Events in flight end normally."""
        lane.closed = True
        out = list(lane.ready)
        lane.ready.clear()
        for behind in lane.keys.values():
            out.extend(behind)
            behind.clear()
        out.extend(entry[2] for entry in self._waiting if entry[2].lane is lane)
        self._waiting = [entry for entry in self._waiting if entry[2].lane is not lane]
        heapq.heapify(self._waiting)
        for event in out:
            self._remove(event, now)
        return out

    def _admit(self, event: QueuedEvent, now: float) -> None:
        lane = event.lane
        if not lane.events:
            lane.health.quiet_since = now
        lane.events += 1
        lane.bytes += event.size
        self.events += 1
        if event.key is not None:
            behind = lane.keys.get(event.key)
            if behind is not None:
                behind.append(event)
                return
            lane.keys[event.key] = deque()
        lane.ready.append(event)
        if not lane.in_ring:
            self.offer(lane, now)

    def _remove(self, event: QueuedEvent, now: float) -> None:
        lane = event.lane
        lane.events -= 1
        lane.bytes -= event.size
        self.events -= 1
        if event.key is not None:
            behind = lane.keys.get(event.key)
            if behind:
                lane.ready.append(behind.popleft())
            elif behind is not None:
                del lane.keys[event.key]
        if lane.ready and not lane.in_ring:
            self.offer(lane, now)
