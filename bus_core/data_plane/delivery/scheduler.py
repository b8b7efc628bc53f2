"""The board: all lanes, whose turn it is, and what waits for its time. Pure state: no thread, no clock, no HTTP.

Kept apart from everything that runs so that a model can be held against it with injected time. Not thread-safe.

The rules, each of which the model test knows:
  * a lane holds at most `events` events and `bytes` bytes, whether they are ready, in flight or waiting for a retry;
  * publish puts an event into every lane of the channel or into none; a full lane that is stalled is shed instead;
  * lanes take turns by deficit round robin over bytes; a lane without recent success has one exchange in flight, and
    all such lanes together at most `suspects`;
  * there are two rings: small events of warm lanes (an open connection waits for them) are for the event loop while
    it has room, everything else is for the threads; a lane is in one of them, and a take that meets it in the wrong
    one moves it over;
  * lanes whose subscriber fails pay for it: what their exchanges cost in CPU time is at most `FAILING_SHARE` of a core;
  * events of one key are in flight one after the other, a retry keeps the key.
"""

from __future__ import annotations

import heapq
import itertools
from collections import deque
from collections.abc import Iterable
from concurrent.futures import Future
from typing import Any

from bus_core.data_plane.delivery.lane import EVENT_COST, Item, Lane, Leg
from bus_core.driver.hookspecs import Outcome
from bus_core.model.errors import BusyError
from bus_core.model.message import Message

QUANTUM = 16 * 1024
"""How much a lane may send in its turn, in bytes and event costs."""

WARM_BYTES = 64 * 1024
"""An event of up to this many bytes fits into a socket's buffer at once, so that the event loop never waits for it."""

FAILING_SHARE = 0.05
"""What all failing lanes together may take of one core. A subscriber that resets each connection at once would else
keep a thread, and with it the interpreter, busy all the time: ran, p99 of its neighbours rose from 0.3 to 12 ms."""


class Board:
    """See the module's first lines.

    Args:
        suspects: how many exchanges the lanes without recent success may have in flight together.
    """

    def __init__(self, suspects: int) -> None:
        self.suspects = suspects
        self.events = 0
        self.suspects_in_flight = 0
        self._ring: deque[Lane] = deque()
        self._warm: deque[Lane] = deque()
        self._warm_open = False  # whether there is an event loop that takes from `_warm`
        self._parked: deque[Lane] = deque()  # suspects that wait for one of the suspects' places
        self._paced: deque[Lane] = deque()  # failing ones that wait for their share
        self._paid_until = float("-inf")
        self._waiting: list[tuple[float, int, Item]] = []
        self._sequence = itertools.count()

    def publish(self, lanes: Iterable[Lane], message: Message, parcel: Any, size: int, now: float) -> list[Lane]:
        """Queue an event in every lane, or in none.

        Returns:
            The stalled lanes that were full: their copies were shed and are the caller's to settle.

        Raises:
            BusyError: a lane that still makes progress is full; nothing was queued.
        """
        takers: list[Lane] = []
        shed: list[Lane] = []
        for lane in lanes:
            if lane.fits(size):
                takers.append(lane)
            elif lane.is_stalled(now):
                shed.append(lane)
            else:
                lane.count("refusals")
                raise BusyError(f"the lane of subscription {lane.name} is full ({lane.events} events)")
        for lane in takers:
            self._admit(Item(lane, message, parcel, size, now), now)
        return shed

    def submit(
        self, lane: Lane, message: Message, parcel: Any, size: int, now: float, key: str | None, future: Future[Outcome]
    ) -> None:
        """Queue an event in one lane.

        Raises:
            BusyError: the lane is full or stalled.
        """
        if lane.is_stalled(now):
            raise BusyError(f"the lane of subscription {lane.name} is stalled")
        if not lane.fits(size):
            raise BusyError(f"the lane of subscription {lane.name} is full ({lane.events} events)")
        self._admit(Item(lane, message, parcel, size, now, key, future), now)

    def send_letter(self, item: Item, sink: Lane, message: Message, parcel: Any, size: int, now: float) -> None:
        """Put an item that has left its own lane into a sink's; the caller has asked `sink.fits`."""
        item.lane, item.message, item.parcel, item.size = sink, message, parcel, size
        item.leg, item.attempts, item.key = Leg.LETTER, 0, None
        self._admit(item, now)

    def take(self, now: float) -> Item | None:
        """The next item that needs a thread, now in flight; None when there is nothing that may start."""
        ring = self._ring
        while ring or self._unpark():
            lane = ring[0]
            if not lane.may_start(now):
                self._leave(ring)
                self._unpark()  # it may have come from there, and left its place unused
                continue
            suspect = lane.is_suspect(now)
            if suspect and self.suspects_in_flight >= self.suspects:
                self._parked.append(ring.popleft())
                continue
            if lane.toll and now < self._paid_until:
                self._paced.append(ring.popleft())
                continue
            if self._is_warm(lane, now):
                self._warm.append(ring.popleft())
                continue
            item = self._start(ring, lane)
            if item is None:
                continue
            item.suspect = suspect
            self.suspects_in_flight += suspect
            if lane.toll:
                self._paid_until = now + lane.toll / FAILING_SHARE
            return item
        return None

    def take_warm(self, now: float) -> Item | None:
        """The next item for the event loop, now in flight; None when there is nothing that may start."""
        ring = self._warm
        while ring:
            lane = ring[0]
            if not lane.may_start(now):
                self._leave(ring)
            elif not self._is_warm(lane, now):
                self._ring.append(ring.popleft())
            elif (item := self._start(ring, lane)) is not None:
                return item
        return None

    def put_back(self, item: Item, size: int, now: float) -> None:
        """There was no open connection for this item after all: it is the next of its lane, and needs a thread.

        Args:
            size: what it has now; it may have become its reply.
        """
        lane = item.lane
        lane.warm = False
        lane.in_flight -= 1
        item.attempts -= 1
        self.grow(item, size)
        lane.ready.appendleft(item)
        self._offer(lane, now)

    def open_warm(self, is_open: bool) -> None:
        """From now on the event loop takes warm lanes' items, or no more of them."""
        self._warm_open = is_open
        if not is_open:
            self._ring.extend(self._warm)
            self._warm.clear()

    def retry(self, item: Item, due: float, now: float) -> None:
        """The exchange failed: the item keeps its place in the bounds and its key, and is ready again at `due`."""
        self._land(item)
        heapq.heappush(self._waiting, (due, next(self._sequence), item))
        self._offer(item.lane, now)

    def grow(self, item: Item, size: int) -> None:
        """The item now holds a reply of another size."""
        item.lane.bytes += size - item.size
        item.size = size

    def finish(self, item: Item, now: float, *, success: bool = False) -> None:
        """The item in flight leaves its lane."""
        self._land(item)
        lane = item.lane
        if success:
            lane.last_success = lane.quiet_since = now
            lane.toll = 0.0
        self._remove(item, now)

    def wake(self, now: float) -> int:
        """Make ready what is due; how many that were."""
        woken = 0
        if self._paced and now >= self._paid_until:
            self._ring.append(self._paced.popleft())
            woken = 1
        waiting = self._waiting
        while waiting and waiting[0][0] <= now:
            item = heapq.heappop(waiting)[2]
            if item.lane.closed:
                continue
            # A retry goes first: it is the oldest of its key, and it frees its place the sooner.
            item.lane.ready.appendleft(item)
            self._offer(item.lane, now)
            woken += 1
        return woken

    @property
    def next_due(self) -> float | None:
        """When to `wake` next; None when nothing waits for a moment."""
        retry = self._waiting[0][0] if self._waiting else None
        if not self._paced:
            return retry
        return self._paid_until if retry is None else min(retry, self._paid_until)

    @property
    def has_ready(self) -> bool:
        """Whether there may be work for a thread."""
        return bool(self._ring)

    @property
    def has_warm(self) -> bool:
        """Whether there may be work for the event loop."""
        return bool(self._warm)

    def withdraw(self, later_than: float, now: float) -> list[Item]:
        """Take out the retries that are due later than this."""
        out = [entry[2] for entry in self._waiting if entry[0] > later_than and not entry[2].lane.closed]
        self._waiting = [entry for entry in self._waiting if entry[0] <= later_than]
        heapq.heapify(self._waiting)
        for item in out:
            self._remove(item, now)
        return out

    def empty(self, lane: Lane, now: float) -> list[Item]:
        """Close a lane and take out everything that is not in flight; those in flight end by themselves."""
        lane.closed = True
        out = list(lane.ready)
        lane.ready.clear()
        for behind in lane.keys.values():
            out.extend(behind)
            behind.clear()
        out.extend(entry[2] for entry in self._waiting if entry[2].lane is lane)
        self._waiting = [entry for entry in self._waiting if entry[2].lane is not lane]
        heapq.heapify(self._waiting)
        for item in out:
            self._remove(item, now)
        return out

    def _admit(self, item: Item, now: float) -> None:
        lane = item.lane
        if not lane.events:
            lane.quiet_since = now
        lane.events += 1
        lane.bytes += item.size
        self.events += 1
        if item.key is not None:
            behind = lane.keys.get(item.key)
            if behind is not None:
                behind.append(item)
                return
            lane.keys[item.key] = deque()
        lane.ready.append(item)
        if not lane.in_ring:
            self._offer(lane, now)

    def _start(self, ring: deque[Lane], lane: Lane) -> Item | None:
        """The item whose turn it is, of the first lane of a ring; None if the lane has had its turn."""
        item = lane.ready[0]
        cost = item.size + EVENT_COST
        if lane.deficit < cost:
            lane.deficit += QUANTUM
            ring.rotate(-1)
            return None
        lane.deficit -= cost
        lane.ready.popleft()
        lane.in_flight += 1
        item.attempts += 1
        return item

    def _leave(self, ring: deque[Lane]) -> None:
        lane = ring.popleft()
        lane.in_ring = False
        lane.deficit = 0

    def _is_warm(self, lane: Lane, now: float) -> bool:
        return lane.warm and self._warm_open and lane.ready[0].size <= WARM_BYTES and not lane.is_suspect(now)

    def _land(self, item: Item) -> None:
        item.lane.in_flight -= 1
        if item.suspect:
            item.suspect = False
            self.suspects_in_flight -= 1
            self._unpark()

    def _unpark(self) -> bool:
        if not self._parked or self.suspects_in_flight >= self.suspects:
            return False
        self._ring.append(self._parked.popleft())
        return True

    def _remove(self, item: Item, now: float) -> None:
        lane = item.lane
        lane.events -= 1
        lane.bytes -= item.size
        self.events -= 1
        if item.key is not None:
            behind = lane.keys.get(item.key)
            if behind:
                lane.ready.append(behind.popleft())
            elif behind is not None:
                del lane.keys[item.key]
        self._offer(lane, now)

    def _offer(self, lane: Lane, now: float) -> None:
        if not lane.in_ring and lane.may_start(now):
            lane.in_ring = True
            (self._warm if self._is_warm(lane, now) else self._ring).append(lane)
