"""The ordered submitter, with a lane whose deliveries the test completes."""

from __future__ import annotations

import traceback
from concurrent.futures import Future
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from bus_core import BusyError, Message, Outcome, SubscriptionReference, UnavailableError
from kafka_bus.ordered_submitter import OrderedSubmitter, Ordering, SubmitPolicy

ONE = SubscriptionReference("one")


class Lane:
    """Takes events and leaves their futures open."""

    def __init__(self, limit: int = 1000) -> None:
        self.open: list[tuple[int, Future[Outcome]]] = []
        self.seen: list[int] = []
        self.limit = limit

    def submit(self, subscription: SubscriptionReference, message: Message) -> Future[Outcome]:
        assert subscription == ONE
        if len(self.open) >= self.limit:
            raise BusyError("full")
        number = int(message.payload)
        future: Future[Outcome] = Future()
        self.seen.append(number)
        self.open.append((number, future))
        return future

    def end(self, number: int, error: Exception | None = None) -> None:
        found = next(entry for entry in self.open if entry[0] == number)
        self.open.remove(found)
        if error is None:
            found[1].set_result(Outcome.DELIVERED)
        else:
            found[1].set_exception(error)

    @property
    def numbers(self) -> list[int]:
        return [number for number, _ in self.open]


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def make(lane: Lane, ordering: Ordering = "key", clock: Clock | None = None, **options: Any) -> OrderedSubmitter:
    policy = SubmitPolicy(ordering, **{"max_in_flight": 100, "max_uncommitted": 1000, **options})
    submitter = OrderedSubmitter(lane.submit, ONE, policy, clock=clock or Clock(), jitter=lambda: 1.0)
    submitter.assign([0, 1])
    return submitter


def offer(submitter: OrderedSubmitter, *numbers: int, key: bytes | None = b"k", partition: int = 0) -> None:
    for number in numbers:
        submitter.offer(partition, number, key, Message({}, b"%d" % number))
    submitter.pump()


def test_events_of_a_key_are_one_after_the_other_and_those_of_others_go_on() -> None:
    lane = Lane()
    submitter = make(lane)
    offer(submitter, 1, 2)
    offer(submitter, 3, key=b"other")
    offer(submitter, 4, key=None)
    assert lane.seen == [1, 3, 4]
    lane.end(1)
    assert lane.seen == [1, 3, 4, 2]


def test_a_lane_that_is_done_at_once_is_no_deep_recursion() -> None:
    done: Future[Outcome] = Future()
    done.set_result(Outcome.DELIVERED)
    lane, seen, depths = Lane(), [], set()

    def submit(subscription: SubscriptionReference, message: Message) -> Future[Outcome]:
        seen.append(int(message.payload))
        depths.add(len(traceback.StackSummary.extract(traceback.walk_stack(None), lookup_lines=False)))
        return lane.submit(subscription, message) if len(seen) == 1 else done

    submitter = OrderedSubmitter(submit, ONE, SubmitPolicy("key", max_in_flight=100, max_uncommitted=10_000))
    submitter.assign([0])
    offer(submitter, *range(300))
    lane.end(0)
    assert seen == list(range(300))
    assert submitter.committable() == {0: 300}
    assert max(depths) - min(depths) < 10


def test_partition_is_one_order_for_all_its_keys() -> None:
    lane = Lane()
    submitter = make(lane, "partition")
    offer(submitter, 1)
    offer(submitter, 2, key=None)
    offer(submitter, 3, partition=1)
    assert lane.seen == [1, 3]


def test_unordered_is_no_order() -> None:
    lane = Lane()
    offer(make(lane, "unordered"), 1, 2, 3)
    assert lane.seen == [1, 2, 3]


def test_what_is_unavailable_comes_again_before_the_rest_of_its_key() -> None:
    lane, clock = Lane(), Clock()
    submitter = make(lane, clock=clock)
    offer(submitter, 1, 2)
    offer(submitter, 3, key=b"other")
    lane.end(1, UnavailableError("down"))
    lane.end(3)
    submitter.pump()
    assert lane.seen == [1, 3], "not before its back-off"
    assert submitter.committable() == {}
    clock.now = 1.1
    submitter.pump()
    assert lane.seen == [1, 3, 1]
    lane.end(1)
    lane.end(2)
    assert submitter.committable() == {0: 4}


def test_the_back_off_grows_to_its_cap() -> None:
    lane, clock = Lane(), Clock()
    submitter = make(lane, clock=clock)
    offer(submitter, 1)
    waits = []
    for _ in range(8):
        lane.end(1, UnavailableError("down"))
        began = clock.now
        while not lane.open:
            clock.now += 0.5
            submitter.pump()
        waits.append(clock.now - began)
    assert waits == [1, 2, 4, 8, 16, 30, 30, 30]


def test_a_full_lane_is_asked_again_and_nothing_is_lost() -> None:
    lane, clock = Lane(limit=2), Clock()
    submitter = make(lane, "unordered", clock)
    offer(submitter, 1, 2, 3, 4)
    assert lane.seen == [1, 2]
    lane.end(1)
    lane.end(2)
    clock.now = 1.0
    submitter.pump()
    assert lane.seen == [1, 2, 3, 4]


def test_a_partition_pauses_when_enough_was_read_and_says_when_it_is_blocked() -> None:
    lane = Lane()
    submitter = make(lane, "unordered", max_in_flight=3, max_uncommitted=5)
    offer(submitter, 1, 2, 3)
    assert not submitter.wants_pause(0)
    offer(submitter, 4, 5)
    assert submitter.wants_pause(0), "five records from the oldest unresolved one on"
    assert submitter.blocked() == {0: 1}
    lane.end(1)
    assert submitter.blocked() == {}
    assert not submitter.wants_pause(0)
    assert not submitter.wants_pause(7), "one that is not assigned"


def test_results_after_a_revocation_are_ignored() -> None:
    lane = Lane()
    submitter = make(lane)
    offer(submitter, 1, 2)
    submitter.drop([0])
    lane.end(1)
    assert submitter.committable() == {}
    assert lane.seen == [1], "what stood behind it is another member's now"
    submitter.assign([0])
    offer(submitter, 1)
    lane.end(1)
    assert submitter.committable() == {0: 2}


def test_settle_waits_for_what_is_in_flight_and_starts_nothing() -> None:
    lane = Lane()
    submitter = make(lane)
    offer(submitter, 1, 2)
    submitter.settle([0], timeout=0.01)
    lane.end(1)
    submitter.settle([0], timeout=5)
    assert lane.seen == [1]
    assert submitter.committable() == {0: 2}


class SubmitterMachine(RuleBasedStateMachine):
    """Anything in any order: each record ends resolved once, in the order of its key, and no bound is passed."""

    def __init__(self) -> None:
        super().__init__()
        self.lane = Lane(limit=4)
        self.clock = Clock()
        policy = SubmitPolicy("key", max_in_flight=5, max_uncommitted=50)
        self.submitter = OrderedSubmitter(self.lane.submit, ONE, policy, clock=self.clock, jitter=lambda: 0.5)
        self.submitter.assign([0])
        self.keys: dict[int, bytes | None] = {}
        self.done: list[int] = []

    @rule(key=st.sampled_from([None, b"a", b"b"]))
    def read(self, key: bytes | None) -> None:
        number = len(self.keys)
        self.keys[number] = key
        offer(self.submitter, number, key=key)

    @precondition(lambda self: self.lane.open)
    @rule(data=st.data(), good=st.booleans())
    def answer(self, data: st.DataObject, good: bool) -> None:
        number = data.draw(st.sampled_from(self.lane.numbers))
        if good:
            self.done.append(number)
        self.lane.end(number, None if good else UnavailableError("down"))

    @rule(seconds=st.floats(0, 40))
    def wait(self, seconds: float) -> None:
        self.clock.now += seconds
        self.submitter.pump()

    @invariant()
    def holds(self) -> None:
        assert len(self.lane.open) <= 4
        keyed = [self.keys[number] for number in self.lane.numbers if self.keys[number] is not None]
        assert len(keyed) == len(set(keyed)), "one of a key at a time"
        for key in (b"a", b"b"):
            ended = [number for number in self.done if self.keys[number] == key]
            assert ended == sorted(ended)
        first = next((number for number in self.keys if number not in self.done), len(self.keys))
        assert self.submitter.committable() == ({0: first} if first else {})

    def teardown(self) -> None:
        for _ in range(1000):
            if len(self.done) == len(self.keys):
                break
            self.clock.now += 40
            self.submitter.pump()
            for number in self.lane.numbers:
                self.done.append(number)
                self.lane.end(number)
        assert sorted(self.done) == list(self.keys), "all are resolved, and once"


TestOrderedSubmitter = pytest.mark.filterwarnings("ignore")(SubmitterMachine.TestCase)
SubmitterMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None, database=None)
