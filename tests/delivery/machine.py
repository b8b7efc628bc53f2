"""Lets hypothesis do anything to the scheduler and its model at any moment of an injected clock, and compares them."""

from __future__ import annotations

from concurrent.futures import Future

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from bus_core.data_plane.delivery.lane import RECENT, Lane, QueuedEvent
from bus_core.data_plane.delivery.scheduler import Scheduler
from bus_core.data_plane.delivery.turns import LOOP_BYTES
from bus_core.model.errors import BusyError
from bus_core.model.message import Message
from tests.delivery.model import KEYS, LANES, LIMITS, MAX_PROBES, SINK, SIZES, Event, Model, of_size, take_for_loop


class SchedulerMachine(RuleBasedStateMachine):
    """Three subscriptions' lanes and a sink's."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.scheduler = Scheduler(max_probes=MAX_PROBES)
        self.lanes = [Lane(str(number), LIMITS, None, 0.0) for number in range(4)]
        self.models = [Model() for _ in range(4)]
        self.loop_open = False
        self.number = 0
        self.settled: set[int] = set()

    def _event(self, size: int, key: str | None = None) -> tuple[Event, Message]:
        self.number += 1
        return Event(self.number, size, key), Message({"ce-id": str(self.number)}, b"")

    def _flying(self) -> list[tuple[int, Event]]:
        return [
            (index, event)
            for index, model in enumerate(self.models)
            for event in [*model.events, *model.orphans]
            if event.state == "flying"
        ]

    def _settle(self, event: Event) -> None:
        assert event.number not in self.settled, "settled twice"
        self.settled.add(event.number)

    @rule(chosen=st.sets(LANES, min_size=1), size=SIZES)
    def publish(self, chosen: set[int], size: int) -> None:
        takers: list[int] = []
        shed: list[int] = []
        refused = False
        for index in sorted(chosen):
            if self.models[index].fits(size):
                takers.append(index)
            elif self.models[index].stalled(self.now):
                shed.append(index)
            else:
                refused = True
        _, message = self._event(size)
        try:
            returned = self.scheduler.publish(
                [self.lanes[index] for index in sorted(chosen)], message, of_size(size), self.now
            )
        except BusyError:
            assert refused, "refused although every lane had room or was stalled"
            return
        assert not refused, "taken although a lane that makes progress is full"
        assert returned == [self.lanes[index] for index in shed], "shed exactly what is full and stalled"
        for index in takers:
            self.models[index].admit(Event(self.number * 10 + index, size), self.now)

    @rule(index=LANES, size=SIZES, key=KEYS)
    def submit(self, index: int, size: int, key: str | None) -> None:
        model = self.models[index]
        refused = model.stalled(self.now) or not model.fits(size)
        event, message = self._event(size, key)
        event.number = event.number * 10 + index
        try:
            self.scheduler.submit(self.lanes[index], message, of_size(size), self.now, key, Future())
        except BusyError:
            assert refused
            return
        assert not refused
        model.admit(event, self.now)

    @rule(index=st.integers(0, 3), has_idle=st.booleans())
    def connect(self, index: int, has_idle: bool) -> None:
        """A thread has left a connection open, or it was closed."""
        self.scheduler.set_idle_connection(self.lanes[index], has_idle)

    @rule(is_open=st.booleans())
    def open_loop(self, is_open: bool) -> None:
        self.scheduler.open_loop(is_open)
        self.loop_open = is_open

    @rule(loop_first=st.booleans())
    def take(self, loop_first: bool) -> None:
        """The event loop and the threads ask in turn; what one of them meets in its ring may be the other's."""
        taken = None if loop_first else self.scheduler.take_for_thread(self.now)
        if taken is None and (taken := take_for_loop(self.scheduler, self.now)) is not None:
            self._check_suits_loop(taken)
        taken = taken or self.scheduler.take_for_thread(self.now) or take_for_loop(self.scheduler, self.now)
        probes = sum(event.probe for _, event in self._flying())
        if taken is None:
            for index in range(4):
                assert not self._may_start(index, probes), f"lane {index} is left waiting although it may start"
            return
        self._take_off(taken, probes)

    @rule(most=st.integers(0, 20))
    def take_batch_for_loop(self, most: int) -> None:
        """The event loop takes several at once: each as if it were the only one."""
        batch = self.scheduler.take_for_loop(self.now, most)
        assert len(batch) <= most
        for taken in batch:
            self._check_suits_loop(taken)
            self._take_off(taken, sum(event.probe for _, event in self._flying()))

    def _check_suits_loop(self, taken: QueuedEvent) -> None:
        assert self.loop_open
        assert taken.lane.health.has_idle_connection
        assert taken.size <= LOOP_BYTES
        assert not taken.lane.is_unhealthy(self.now)

    def _take_off(self, taken: QueuedEvent, probes: int) -> None:
        index = self.lanes.index(taken.lane)
        model = self.models[index]
        assert self._may_start(index, probes), "it may not start now"
        number = int(taken.message.headers["ce-id"]) * 10 + index
        event = next(event for event in model.events if event.number == number)
        assert event.state == "ready", "not twice at once, not before it is due, not before its key's turn"
        event.state, event.probe, event.real = "flying", model.unhealthy(self.now), taken

    def _may_start(self, index: int, probes: int) -> bool:
        model = self.models[index]
        ready = [event for event in model.events if event.state == "ready"]
        if model.closed or not ready:
            return False
        if model.unhealthy(self.now):
            if probes >= MAX_PROBES or model.count("flying") >= 1:
                return False
        elif model.count("flying") >= LIMITS.in_flight:
            return False
        return model.bytes <= LIMITS.bytes or not model.count("flying")

    @precondition(lambda self: any(not event.probe for _, event in self._flying()))
    @rule(data=st.data())
    def put_back(self, data: st.DataObject) -> None:
        """There was no connection for it."""
        chosen = [(i, e) for i, e in self._flying() if not e.probe and e not in self.models[i].orphans]
        if chosen:
            _, event = data.draw(st.sampled_from(chosen))
            assert event.real is not None
            self.scheduler.put_back(event.real, self.now)
            assert not event.real.lane.health.has_idle_connection
            event.state = "ready"

    @precondition(lambda self: self._flying())
    @rule(
        data=st.data(),
        how=st.sampled_from(["retry", "success", "drop", "letter", "grow"]),
        wait=st.sampled_from([0.0, 0.5, 4.0]),
    )
    def land(self, data: st.DataObject, how: str, wait: float) -> None:
        index, event = data.draw(st.sampled_from(self._flying()))
        model, lane = self.models[index], self.lanes[index]
        taken = event.real
        assert taken is not None
        if event in model.orphans:
            self.scheduler.finish(taken, self.now)
            model.orphans.remove(event)
            self._settle(event)
            return
        if how in ("retry", "grow"):
            if how == "grow":
                event.size += 7_000
                model.grown = True
                self.scheduler.grow(taken, event.size)
            self.scheduler.retry(taken, self.now + wait, self.now)
            event.state, event.due, event.probe = "waiting", self.now + wait, False
            return
        if how == "letter" and index != SINK and self.models[SINK].fits(event.size):
            self.scheduler.finish(taken, self.now)
            model.leave(event, self.now)
            sink_event, message = self._event(event.size)
            sink_event.number = sink_event.number * 10 + SINK
            self.scheduler.become_dead_letter(taken, self.lanes[SINK], message, of_size(event.size), self.now)
            self.models[SINK].admit(sink_event, self.now)
            self._settle(event)
            return
        self.scheduler.finish(taken, self.now, success=how == "success")
        if how == "success":
            model.last_success = model.quiet_since = self.now
        model.leave(event, self.now)
        self._settle(event)
        assert lane.events == len(model.events)

    @rule(seconds=st.sampled_from([0.0, 0.5, RECENT, RECENT + 0.1, LIMITS.stall_after]))
    def advance(self, seconds: float) -> None:
        self.now += seconds
        self.scheduler.release_due(self.now)
        for model in self.models:
            for event in model.events:
                if event.state == "waiting" and event.due <= self.now:
                    event.state = "ready"

    @rule(index=LANES)
    def close(self, index: int) -> None:
        model, lane = self.models[index], self.lanes[index]
        out = self.scheduler.close(lane, self.now)
        expected = {event.number for event in model.events if event.state != "flying"}
        assert {int(taken.message.headers["ce-id"]) * 10 + index for taken in out} == expected, "nothing is forgotten"
        assert len(out) == len(expected)
        orphans = [event for event in model.events if event.state == "flying"]
        for event in model.events:
            if event.state != "flying":
                self._settle(event)
        # The subscription comes back with a lane of its own; what is in flight ends with the old one.
        self.lanes[index] = Lane(str(index), LIMITS, None, self.now)
        self.models[index] = Model(quiet_since=self.now, orphans=[*model.orphans, *orphans])

    @rule(limit=st.floats(0, 4))
    def withdraw(self, limit: float) -> None:
        out = self.scheduler.withdraw(self.now + limit, self.now)
        number = 0
        for model in self.models:
            for event in [e for e in model.events if e.state == "waiting" and e.due > self.now + limit]:
                model.leave(event, self.now)
                self._settle(event)
                number += 1
        assert len(out) == number

    @invariant()
    def agree(self) -> None:
        orphans = sum(len(model.orphans) for model in self.models)
        assert self.scheduler.events == sum(len(model.events) for model in self.models) + orphans
        assert self.scheduler.probes == sum(event.probe for _, event in self._flying())
        assert self.scheduler.probes <= MAX_PROBES
        for model, lane in zip(self.models, self.lanes, strict=True):
            assert lane.events == len(model.events) <= LIMITS.events
            assert lane.bytes == model.bytes
            assert lane.in_flight == model.count("flying") <= LIMITS.in_flight
            assert model.grown or lane.bytes <= LIMITS.bytes or len(model.events) == 1
            assert lane.is_stalled(self.now) == model.stalled(self.now)
            for key in ("a", "b"):
                states = [event.state for event in model.events if event.key == key]
                assert all(state == "behind" for state in states[1:]), "a key's events are one after the other"

    def teardown(self) -> None:
        """Whatever happened, all that is left can be delivered: nothing is lost and nothing is stuck."""
        self.now += 100.0
        for _ in range(10_000):
            # One lap: everything due becomes ready, everything that may start is delivered.
            self.scheduler.release_due(self.now)
            taken = (
                take_for_loop(self.scheduler, self.now)
                or self.scheduler.take_for_thread(self.now)
                or take_for_loop(self.scheduler, self.now)
            )
            if taken is not None:
                self.scheduler.finish(taken, self.now, success=True)
                continue
            flying = self._flying()
            if not flying:
                break
            index, event = flying[0]
            assert event.real is not None
            self.scheduler.finish(event.real, self.now, success=True)
            model = self.models[index]
            (model.orphans if event in model.orphans else model.events).remove(event)
        assert self.scheduler.events == 0
