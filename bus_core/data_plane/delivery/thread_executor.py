"""The crew: threads on demand that carry out exchanges, and a timekeeper that wakes retries and hires."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from bus_core.data_plane.delivery.lane import Item
from bus_core.telemetry import get_logger

STUCK_AFTER = 0.25
"""An exchange that takes longer than this many seconds does not count against the threads for prompt ones."""

PROMPT = 0.02
"""An exchange that began less than this many seconds ago may well be over at once; an older one waits for its
subscriber."""

FEW = 2
"""So many threads in prompt exchanges are enough while the interpreter is busy: more would only take turns with its
lock, and each change of hands costs as much as an exchange (ten subscriptions, two cores: 14k deliveries a second at
65 µs with two, 8k at 135 µs with as many as there were idle, 8.5k at 75 µs with one)."""

BUSY = 0.4
"""The part of a core from which on the interpreter counts as busy."""

_IDLE_EXIT = 10.0
_TICK = 0.02
_FLUSH = 0.5

log = get_logger(__name__)


class _Hand:
    """One thread: what it is doing, since when, and whether that is for a suspect lane."""

    __slots__ = ("away", "busy", "gate", "item", "since")

    def __init__(self) -> None:
        self.gate = threading.Lock()  # closed; who opens it has taken the thread out of the idle ones
        self.gate.acquire()
        self.item: Item | None = None
        self.busy = False  # has an item, or was woken for one
        self.since = 0.0
        self.away = False


class Crew:
    """Threads that repeat: settle the last item, take the next, carry it out.

    Few threads work while the interpreter is busy, more while it has time and work waits; they grow and shrink every
    tick. A thread that is done while enough others are at it rests, and the last one to rest is the first to be woken.

    A hung subscriber keeps its thread until the deadline; such threads are replaced up to `cap`, so that the prompt
    ones always have `prompt` threads between them. A thread that goes to a suspect lane may be gone for that long, so
    it never is the last one: before it goes, another stands by.

    Args:
        lock: guards the board; `take` and the functions that `carry_out` returns are called with it held.
        take: the next item, or None.
        carry_out: does the exchange, without the lock; returns what to do with the lock held, which in turn returns
            callbacks to run without it.
        tick: called now and then by the timekeeper with the lock held; returns when it wants to be called next (seconds
            from now), and whether there is work that no thread has taken.
        flush: called twice a second without the lock.
    """

    def __init__(
        self,
        lock: threading.Lock,
        take: Callable[[], Item | None],
        carry_out: Callable[[Item], Callable[[], list[Callable[[], None]]]],
        tick: Callable[[], tuple[float | None, bool]],
        flush: Callable[[], None],
        *,
        prompt: int,
        cap: int,
    ) -> None:
        self._lock = lock
        self._take = take
        self._carry_out = carry_out
        self._tick = tick
        self._flush = flush
        self._prompt = prompt
        self._cap = cap
        self._wanted = FEW  # threads in prompt exchanges; between FEW and `prompt`, as the interpreter has time
        self._looked = (0.0, 0.0)
        self._idle: list[_Hand] = []  # the last one in is the first one out: its memory is still warm
        self._away = 0
        self._hands: set[_Hand] = set()
        self._nudge = threading.Event()
        self._next_look = 0.0
        self._closing = False
        self._timekeeper: threading.Thread | None = None

    def call(self, items: int) -> None:
        """There is new work for up to `items` threads. Lock held; never blocks."""
        if self._timekeeper is None and not self._closing:
            self._timekeeper = threading.Thread(target=self._keep_time, name="delivery-time", daemon=True)
            self._timekeeper.start()
        if not self._hands:
            self._hire()
            return
        now = time.monotonic()
        wake = 0
        if self._idle:
            at_it = self._at_it(now)
            wake = max(min(items, len(self._idle), self._wanted - at_it), 0)
            for _ in range(wake):
                self._wake(now)
        if wake < items and self._next_look - now > _TICK:
            self._nudge.set()

    def due(self, moment: float) -> None:
        """Something is due at this moment of the monotonic clock. Lock held."""
        if moment < self._next_look:
            self._nudge.set()

    def in_flight(self) -> list[Item]:
        """What the threads are busy with. Lock held."""
        return [hand.item for hand in self._hands if hand.item is not None]

    def close(self) -> None:
        """Let idle threads go at once and busy ones after their exchange. Does not wait for them."""
        with self._lock:
            self._closing = True
            for hand in self._idle:
                hand.gate.release()
            self._idle.clear()
        self._nudge.set()
        if self._timekeeper is not None:
            self._timekeeper.join()
        self._flush()

    def _hire(self) -> None:
        hand = _Hand()
        self._hands.add(hand)
        # Daemons: a subscriber that hangs must not keep the process from ending after the drain.
        threading.Thread(target=self._serve, args=(hand,), name="delivery", daemon=True).start()

    def _wake(self, now: float) -> None:
        hand = self._idle.pop()
        hand.busy, hand.since = True, now
        hand.gate.release()

    def _serve(self, hand: _Hand) -> None:
        settle: Callable[[], list[Callable[[], None]]] | None = None
        while True:
            callbacks: list[Callable[[], None]] = []
            with self._lock:
                hand.item = None
                if hand.away:
                    hand.away = False
                    self._away -= 1
                if settle is not None:
                    try:
                        callbacks = settle()
                    except Exception:  # a fault of ours must not end the thread, and hold its place for ever
                        log.exception("an exchange could not be settled")
                    settle = None
                item = None if self._is_one_too_many(hand) else self._take()
                if item is None:
                    if self._closing:
                        self._hands.discard(hand)
                    else:
                        hand.busy = False
                        self._idle.append(hand)
                else:
                    hand.item = item
                    hand.busy = True
                    hand.since = time.monotonic()
                    if item.suspect:
                        hand.away = True
                        self._away += 1
                        self._replace(hand)
            for callback in callbacks:
                callback()
            if item is not None:
                settle = self._carry_out(item)
            elif self._closing or not self._wait(hand):
                return

    def _at_it(self, now: float, *, without: _Hand | None = None) -> int:
        """How many threads are at an exchange that may well be over at once."""
        soon = now - PROMPT
        return sum(
            1 for hand in self._hands if hand.busy and hand.since > soon and not hand.away and hand is not without
        )

    def _replace(self, hand: _Hand) -> None:
        """A thread goes where it may be held up: what it would have done next must not wait for it."""
        if self._closing:
            return
        if self._idle and self._at_it(hand.since) < self._wanted:
            self._wake(hand.since)
        elif self._away == len(self._hands) < self._cap:
            self._hire()

    def _is_one_too_many(self, mine: _Hand) -> bool:
        """Whether enough others are at prompt exchanges, so that this thread had better rest."""
        if len(self._hands) - len(self._idle) <= self._wanted or self._closing:
            return False
        now = time.monotonic()
        if self._at_it(now, without=mine) < self._wanted:
            return False
        if self._next_look - now > _TICK:
            self._nudge.set()  # should they all get stuck, somebody looks soon
        return True

    def _wait(self, hand: _Hand) -> bool:
        """Until there is work; False when this thread is no longer needed."""
        if hand.gate.acquire(timeout=_IDLE_EXIT):
            return True
        with self._lock:
            if hand in self._idle:
                self._idle.remove(hand)
                self._hands.discard(hand)
                return False
        hand.gate.acquire()  # it was being opened when we gave up
        return True

    def _keep_time(self) -> None:
        flushed = time.monotonic()
        while not self._closing:
            with self._lock:
                self._nudge.clear()
                wait, backlog = self._tick()
                now = time.monotonic()
                if backlog:
                    self._adapt(now)
                    self._reinforce(now)
                wait = min(_FLUSH if wait is None else wait, _TICK if backlog else _FLUSH)
                self._next_look = now + wait
            if now - flushed >= _FLUSH:
                self._flush()
                flushed = now
            self._nudge.wait(max(wait, 0.001))

    def _adapt(self, now: float) -> None:
        """More threads while work waits and the interpreter has time, fewer while it has none."""
        used = time.process_time()
        since, before = self._looked
        if now - since < _TICK / 2:
            return
        self._looked = (now, used)
        if now - since > 10 * _TICK:
            return  # the last look was at another time
        if (used - before) / (now - since) < BUSY:
            self._wanted = min(self._wanted * 2, self._prompt)
        else:
            self._wanted = max(self._wanted // 2, FEW)

    def _reinforce(self, now: float) -> None:
        missing = self._wanted - self._at_it(now)
        if missing > 0 and self._idle:
            for _ in range(min(missing, len(self._idle))):
                self._wake(now)
            return
        prompt = sum(1 for hand in self._hands if not hand.busy or now - hand.since < STUCK_AFTER)
        if missing > 0 and prompt < self._prompt and len(self._hands) < self._cap:
            self._hire()
