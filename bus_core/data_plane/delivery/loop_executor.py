"""Flights: the exchanges that the event loop carries out itself, on connections that are open already."""

from __future__ import annotations

import asyncio
import contextlib
import select
import threading
from collections.abc import Callable
from time import monotonic, process_time

from bus_core import telemetry
from bus_core.data_plane.delivery.attempt import DONE, Exchanger, Verdict
from bus_core.data_plane.delivery.lane import Item, Target
from bus_core.data_plane.delivery.scheduler import Board
from bus_core.data_plane.dispatch import MessageDispatcher, PlainConnection, Route
from bus_core.data_plane.dispatch.pool import Pool
from bus_core.model.errors import DispatchError

MOST = 256
"""So many exchanges at once. When half as many wait for slow subscribers, the threads take over what else there is,
until some have ended."""

FEW = 64
"""So many are enough while the process is busy: with 256 under way a hundred subscriptions cost 18 % more each
than with 64, whose sockets and buffers stay warm. While it has time, and subscribers have not, it grows to `MOST`."""

BUSY = 0.7
"""The part of a core from which on the process counts as busy."""

BATCH = 8
"""So many published or refused events at most between two turns: the deliveries of several, one after the other, cost
12 % less than each at its event (the code is warm), but a loop with hundreds of requests to read must not wait for its
end with delivering."""

IDLE_LIMIT = 60.0
"""Seconds after which an unused connection is closed: what is between may have forgotten it without a word."""

_SWEEP = 0.05
_SLOW_SWEEP = 10.0

log = telemetry.get_logger(__name__)


class _Line:
    """One open connection of the loop's, and what is under way on it."""

    __slots__ = (
        "connection",
        "deadline",
        "fd",
        "idle_since",
        "item",
        "pool",
        "route",
        "since",
        "target",
        "timeout",
        "writing",
    )

    item: Item | None
    target: Target
    route: Route

    def __init__(self, connection: PlainConnection, pool: Pool) -> None:
        self.connection = connection
        self.pool = pool
        self.fd: int = connection.sock.fileno()
        self.item = None
        self.deadline = self.timeout = self.idle_since = self.since = 0.0
        self.writing = False


class Flights:
    """Exchanges without a thread: an event loop starts them and comes back when the answer is there.

    A thread that waits for an answer has to get the interpreter's lock back from the event loop, which has to get it
    back in turn: the two hand it to and fro several times an event, and that costs more than the exchange (measured, a
    subscription each: 205 µs of CPU an event with threads, 125 µs without). What may block stays with the threads:
    finding addresses, connecting, TLS, large events, and subscribers that have not answered lately. So this needs a
    connection that a thread has opened, and it gives back an item for which there is none.

    All sockets are watched by one epoll of its own, which the event loop watches in turn. So the exchanges under way
    can be carried on between two requests (`go`), and a loop with hundreds to read does not forget to deliver.

    Args:
        lock: guards the board.
        board: where warm lanes' items come from.
        exchanger: says where an item goes and what follows.
        dispatcher: whose connections are used.
        settle: called with the lock held, returns callbacks to run without it.
        hire: called with the lock held when there is work for a thread.
    """

    def __init__(
        self,
        lock: threading.Lock,
        board: Board,
        exchanger: Exchanger,
        dispatcher: MessageDispatcher,
        settle: Callable[[Item, Verdict], list[Callable[[], None]]],
        hire: Callable[[], None],
    ) -> None:
        self._lock = lock
        self._board = board
        self._exchanger = exchanger
        self._dispatcher = dispatcher
        self._settle = settle
        self._hire = hire
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = 0
        self._epoll: select.epoll | None = None
        self._lines: dict[int, _Line] = {}  # by file descriptor
        self._free: dict[Pool, list[_Line]] = {}  # by pool; the last used on top
        self._flying = 0
        self._most = FEW
        self._looked = (0.0, 0.0)
        self._full = False
        self._turning = False
        self._called = False
        self._since = 0  # published since the last turn
        self._timer: asyncio.TimerHandle | None = None
        self._slow = False  # whether the timer only looks after idle connections

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """Deliver on this loop from now on; call it on the loop's thread. Where the system has no epoll, nothing
        changes, and threads deliver everything."""
        if not hasattr(select, "epoll"):
            return
        self._epoll = select.epoll()
        self._loop, self._thread = loop, threading.get_ident()
        loop.add_reader(self._epoll.fileno(), self._turn)
        with self._lock:
            self._board.open_warm(True)

    def go(self) -> None:
        """Carry on soon: what has been answered, then what waits on the board. Any thread, without the lock."""
        if threading.get_ident() != self._thread:
            if self._board.has_warm:
                self.wake()
            return
        self._since += 1
        if self._since >= BATCH:
            self._turn()
        elif not self._called and self._loop is not None:
            self._called = True
            self._loop.call_soon(self._turn)

    def wake(self) -> None:
        """Have the loop carry on soon. Any thread, with the lock or without."""
        if self._called or self._loop is None:
            return
        self._called = True
        with contextlib.suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self._turn)

    def in_flight(self) -> list[Item]:
        """What is under way. Lock held."""
        return [line.item for line in list(self._lines.values()) if line.item is not None]

    def close(self) -> None:
        """Take nothing more, and close the connections. Any thread; does not wait."""
        with self._lock:
            self._board.open_warm(False)
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                self._loop.call_soon_threadsafe(self._detach)

    # What follows runs on the loop's thread.

    def _detach(self) -> None:
        if self._loop is None or self._epoll is None:
            return
        self._loop.remove_reader(self._epoll.fileno())
        if self._timer is not None:
            self._timer.cancel()
        self._loop = None
        for line in list(self._lines.values()):
            if line.item is not None:
                self._land(line, self._exchanger.failed(line.item, line.target, DispatchError("the bus has stopped")))
            else:
                self._drop(line)
        self._epoll.close()

    def _turn(self) -> None:
        if self._turning or self._loop is None or self._epoll is None:
            return
        self._turning, self._called, self._since = True, False, 0
        try:
            for fd, _ in self._epoll.poll(0):
                line = self._lines.get(fd)
                if line is not None:
                    self._advance(line)
            if self._board.has_warm:
                self._launch()
            if self._board.has_ready:
                with self._lock:
                    self._hire()
        except Exception:  # a fault of ours must not become the answer to whoever publishes
            log.exception("the event loop could not go on with its deliveries, and will try again")
        finally:
            self._turning = False

    def _launch(self) -> None:
        """Start what may start."""
        now = monotonic()
        while self._flying < self._most:
            with self._lock:
                item = self._board.take_warm(now)
            if item is None:
                break
            target = item.source.target
            assert target is not None  # a sink's lane is never the source of an item
            self._start(item, target)
        if self._flying and (self._timer is None or self._slow):
            self._arm()

    def _start(self, item: Item, target: Target) -> None:
        try:
            route = self._exchanger.route(item, target)
        except Exception as error:
            self._conclude(item, self._exchanger.failed(item, target, error))
            return
        line = self._line(route)
        if line is None:
            self._give_back(item)
            return
        self._flying += 1
        timeout = target.spec.timeout or 0.0
        line.item, line.target, line.route, line.timeout = item, target, route, timeout
        line.since = monotonic()
        line.deadline = line.since + timeout
        try:
            self._dispatcher.start(line.connection, route, item.parcel)
            if line.connection.unsent:
                self._watch(line, writing=True)
        except Exception as error:
            self._land(line, self._exchanger.failed(item, target, error))

    def _advance(self, line: _Line) -> None:
        """The socket of a line is ready."""
        item, connection = line.item, line.connection
        if item is None:
            self._drop(line)  # an idle connection that has something to say is one that closes
            return
        try:
            reply = self._dispatcher.go_on(connection, line.route)
            if reply is None:
                if line.writing and not connection.unsent:
                    self._watch(line, writing=False)
                return
            again = self._exchanger.replies(item, line.target, reply)
        except Exception as error:
            self._land(line, self._exchanger.failed(item, line.target, error))
            return
        if again:
            self._free_line(line)
            self._start(item, line.target)
        else:
            self._land(line, DONE)

    def _land(self, line: _Line, verdict: Verdict) -> None:
        item = line.item
        assert item is not None
        self._free_line(line)
        self._conclude(item, verdict)

    def _conclude(self, item: Item, verdict: Verdict) -> None:
        with self._lock:
            if verdict is not DONE:
                item.lane.warm = False
            callbacks = self._settle(item, verdict)
        for callback in callbacks:
            callback()

    def _give_back(self, item: Item) -> None:
        with self._lock:
            if not item.lane.closed:
                self._board.put_back(item, item.parcel.size, monotonic())
                self._hire()
                return
        self._conclude(item, Verdict())

    def _line(self, route: Route) -> _Line | None:
        free = self._free.get(route.pool)
        if free:
            return free.pop()
        connection = route.pool.take_open()
        if connection is None or self._epoll is None:
            return None
        line = _Line(connection, route.pool)
        self._lines[line.fd] = line
        self._epoll.register(line.fd, select.EPOLLIN)
        return line

    def _free_line(self, line: _Line) -> None:
        """Nothing is under way on it any more."""
        with self._lock:
            line.item = None
            self._flying -= 1
            if self._full and self._flying <= MOST // 2 and self._loop is not None:
                self._full = False
                self._board.open_warm(True)
        if line.connection.sock is None or line.pool.pool is None or self._loop is None:
            self._drop(line)
            return
        if line.writing:
            self._watch(line, writing=False)
        line.idle_since = monotonic()
        self._free.setdefault(line.pool, []).append(line)

    def _drop(self, line: _Line) -> None:
        del self._lines[line.fd]
        free = self._free.get(line.pool)
        if free and line in free:
            free.remove(line)
        if free is not None and not free:
            del self._free[line.pool]
        line.connection.close()  # which ends the watching, too

    def _watch(self, line: _Line, *, writing: bool) -> None:
        assert self._epoll is not None
        line.writing = writing
        self._epoll.modify(line.fd, select.EPOLLIN | select.EPOLLOUT if writing else select.EPOLLIN)

    def _sweep(self) -> None:
        """End what has taken too long, and what has been idle for too long."""
        now = monotonic()
        slow = 0
        for line in list(self._lines.values()):
            if line.item is None:
                if now - line.idle_since > IDLE_LIMIT:
                    self._drop(line)
                continue
            slow += now - line.since > _SWEEP
            if now > line.deadline:
                error = line.connection.late(line.route.destination, line.timeout)
                line.connection.close()
                self._land(line, self._exchanger.failed(line.item, line.target, error))
        self._adapt(now)
        if slow > MOST // 2 and not self._full:
            with self._lock:
                self._full = True
                self._board.open_warm(False)
                if self._board.has_ready:
                    self._hire()
        self._arm()
        self._turn()

    def _adapt(self, now: float) -> None:
        """More exchanges at once where they wait for subscribers, fewer where they wait for us."""
        used = process_time()
        since, before = self._looked
        self._looked = (now, used)
        if now - since > 2 * _SWEEP:
            return  # the last look was at another time
        if (used - before) / (now - since) > BUSY:
            self._most = max(self._most // 2, FEW)
        elif self._flying >= self._most:
            self._most = min(self._most * 2, MOST)

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._lines and self._loop is not None:
            self._slow = not self._flying
            self._timer = self._loop.call_later(_SLOW_SWEEP if self._slow else _SWEEP, self._sweep)
