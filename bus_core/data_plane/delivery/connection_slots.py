"""Delivery: the connections of the loop executor. Each slot holds an open connection and its running attempt."""

from __future__ import annotations

import select
from collections.abc import Iterator

from bus_core.data_plane.delivery.lane import QueuedEvent, Target
from bus_core.data_plane.dispatch import Connection, Pool, Route

IDLE_LIMIT = 60.0
"""Seconds after which an unused connection is closed: a router may have dropped its state silently."""


class ConnectionSlot:
    """One open connection, and its running attempt.

    Attributes:
        event: the event in flight; None while idle. Written with the engine's lock held once an attempt has ended.
        target: the subscription's target at the begin of the attempt.
        route: the destination of the event.
        since: when the attempt began, or the slot became idle, by the monotonic clock.
        deadline: the end of the attempt at the latest, by the monotonic clock.
        writing: whether epoll also reports that the socket can take more.
    """

    __slots__ = ("connection", "deadline", "event", "fd", "pool", "route", "since", "target", "writing")

    event: QueuedEvent | None
    target: Target
    route: Route

    def __init__(self, connection: Connection, pool: Pool) -> None:
        assert connection.sock is not None
        self.connection = connection
        self.pool = pool
        self.fd = connection.sock.fileno()
        self.event = None
        self.since = self.deadline = 0.0
        self.writing = False


class ConnectionSlots:
    """All slots, watched by one epoll object. Used only by the loop's thread.

    Attributes:
        epoll: readable while a slot is ready; for the event loop to watch.
        in_use: the number of slots with a running attempt.
    """

    def __init__(self) -> None:
        self.epoll = select.epoll()
        self.in_use = 0
        self._slots: dict[int, ConnectionSlot] = {}  # by file descriptor
        self._idle: dict[Pool, list[ConnectionSlot]] = {}  # the last used at the end

    def __iter__(self) -> Iterator[ConnectionSlot]:
        return iter(list(self._slots.values()))

    def ready(self) -> list[ConnectionSlot]:
        """The slots whose sockets are ready. Never waits. Closes idle connections that are ready: the other side has
        closed, or has sent unexpected bytes."""
        ready = []
        for fd, _ in self.epoll.poll(0):
            slot = self._slots.get(fd)
            if slot is not None:
                if slot.event is None:
                    self.drop(slot)
                else:
                    ready.append(slot)
        return ready

    def take(self, event: QueuedEvent, target: Target, route: Route, now: float) -> ConnectionSlot | None:
        """A slot with a connection to the route, for this attempt; None if no connection is open."""
        pool = route.pool
        idle = self._idle.get(pool)
        if idle:
            slot = idle.pop()
        else:
            connection = pool.take_open()
            if connection is None:
                return None
            slot = ConnectionSlot(connection, pool)
            self._slots[slot.fd] = slot
            self.epoll.register(slot.fd, select.EPOLLIN)
        self.in_use += 1
        slot.event, slot.target, slot.route, slot.since = event, target, route, now
        slot.deadline = now + (target.spec.timeout or 0.0)
        return slot

    def release(self, slot: ConnectionSlot, now: float) -> None:
        """Keep the connection if it can carry another attempt. Call it after an attempt; `slot.event` is None then."""
        self.in_use -= 1
        if slot.connection.sock is None or slot.pool.closed:
            self.drop(slot)
            return
        if slot.writing:
            self.watch(slot, writing=False)
        slot.since = now
        idle = self._idle.get(slot.pool)
        if idle is None:
            self._idle[slot.pool] = [slot]
        else:
            idle.append(slot)

    def watch(self, slot: ConnectionSlot, *, writing: bool) -> None:
        """Choose whether the slot is also ready when its socket can take more."""
        slot.writing = writing
        if slot.connection.sock is not None:
            self.epoll.modify(slot.fd, select.EPOLLIN | select.EPOLLOUT if writing else select.EPOLLIN)

    def drop(self, slot: ConnectionSlot) -> None:
        """Close the slot's connection, which also ends the watching."""
        if self._slots.get(slot.fd) is slot:  # once closed, its number may be another connection's
            del self._slots[slot.fd]
        idle = self._idle.get(slot.pool)
        if idle is not None:
            if slot in idle:
                idle.remove(slot)
            if not idle:
                del self._idle[slot.pool]
        slot.connection.close()

    def drop_unused(self, now: float) -> None:
        """Close connections that were idle for too long."""
        for slot in self:
            if slot.event is None and now - slot.since > IDLE_LIMIT:
                self.drop(slot)

    def close(self) -> None:
        """Close everything."""
        for slot in self:
            self.drop(slot)
        self.epoll.close()
