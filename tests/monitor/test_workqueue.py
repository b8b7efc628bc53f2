"""The workqueue against a model, with injected time."""

from __future__ import annotations

import threading

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from bus_core.control_plane.monitor.workqueue import MAX_BACKOFF, WorkQueue, backoff

KEYS = st.sampled_from("abc")


class Model(RuleBasedStateMachine):
    """A key is worked on by one at a time, never lost, and never early."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.queue: WorkQueue[str] = WorkQueue(clock=lambda: self.now, jitter=lambda: 1.0)
        self.wanted: dict[str, float] = {}  # key → the moment from which it must be handed out
        self.working: set[str] = set()
        self.failures: dict[str, int] = {}

    @rule(key=KEYS)
    def add(self, key: str) -> None:
        self.queue.add(key)
        self.wanted[key] = min(self.wanted.get(key, self.now), self.now)

    @rule(key=KEYS, delay=st.sampled_from([0.0, 0.5, 1.0, 5.0]))
    def add_after(self, key: str, delay: float) -> None:
        self.queue.add_after(key, delay)
        self.wanted[key] = min(self.wanted.get(key, float("inf")), self.now + delay)

    @rule(key=KEYS)
    def fail(self, key: str) -> None:
        delay = self.queue.add_failed(key)
        self.failures[key] = self.failures.get(key, 0) + 1
        assert delay == backoff(self.failures[key], lambda: 1.0)
        self.wanted[key] = min(self.wanted.get(key, float("inf")), self.now + delay)

    @rule(key=KEYS)
    def forget(self, key: str) -> None:
        self.queue.forget(key)
        self.failures.pop(key, None)

    @rule(step=st.sampled_from([0.1, 0.5, 2.0]))
    def wait(self, step: float) -> None:
        self.now += step

    @rule()
    def get(self) -> None:
        due = {key for key, moment in self.wanted.items() if moment <= self.now and key not in self.working}
        key = self.queue.get(timeout=0)
        if key is None:
            assert not due
            return
        assert key in due
        del self.wanted[key]
        self.working.add(key)

    @precondition(lambda self: self.working)
    @rule(data=st.data())
    def done(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(self.working)))
        self.working.discard(key)
        self.queue.done(key)

    @invariant()
    def nothing_is_worked_on_twice(self) -> None:
        assert len(self.working) <= 3


TestModel = Model.TestCase
TestModel.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


def test_backoff_doubles_up_to_its_cap() -> None:
    steps = [backoff(n, lambda: 1.0) for n in range(1, 12)]
    assert steps[:4] == [0.1, 0.2, 0.4, 0.8]
    assert steps[-1] == MAX_BACKOFF
    assert backoff(1, lambda: 0.0) == 0.05


def test_close_wakes_whoever_waits() -> None:
    queue: WorkQueue[str] = WorkQueue()
    got: list[str | None] = []
    thread = threading.Thread(target=lambda: got.append(queue.get()))
    thread.start()
    queue.close()
    thread.join(5)
    assert got == [None]


def test_an_add_wakes_whoever_waits_for_a_later_key() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add_after("late", 60)
    got: list[str | None] = []
    thread = threading.Thread(target=lambda: got.append(queue.get()))
    thread.start()
    queue.add("now")
    thread.join(5)
    assert got == ["now"]
