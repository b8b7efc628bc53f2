"""What failing subscribers cost: together at most their share of a core, whatever their number."""

from __future__ import annotations

import pytest

from bus_core.data_plane.delivery.lane import Lane, LaneLimits
from bus_core.data_plane.delivery.scheduler import Scheduler
from bus_core.data_plane.delivery.turns import FAILING_SHARE
from bus_core.model.message import Message
from tests.delivery.model import of_size

MESSAGE = Message({}, b"")
COST = 0.001


def lane(scheduler: Scheduler, name: str, events: int) -> Lane:
    made = Lane(name, LaneLimits(), None, 0.0)
    for _ in range(events):
        scheduler.publish([made], MESSAGE, of_size(100), 0.0)
    return made


@pytest.mark.parametrize("number", [1, 20])
def test_failing_lanes_share_what_they_may_cost(number: int) -> None:
    scheduler = Scheduler(max_probes=100)
    lanes = [lane(scheduler, str(index), 1000) for index in range(number)]
    tries = dict.fromkeys(lanes, 0)
    now, end = 0.0, 10.0
    while now < end:
        while (event := scheduler.take_for_thread(now)) is not None:
            tries[event.lane] += 1
            scheduler.charge(event.lane, COST)
            scheduler.retry(event, now, now)
        due = scheduler.next_due
        assert due is not None
        now = max(now + 1e-6, due)
        scheduler.release_due(now)
    allowed = end * FAILING_SHARE / COST
    assert allowed * 0.9 <= sum(tries.values()) <= allowed * 1.1 + number
    assert max(tries.values()) <= min(tries.values()) * 1.5 + 1, "they take turns"


def test_a_success_ends_the_pacing() -> None:
    scheduler = Scheduler(max_probes=100)
    failing = lane(scheduler, "failing", 10)
    first = scheduler.take_for_thread(0.0)
    assert first is not None
    scheduler.charge(failing, COST)
    scheduler.retry(first, 0.0, 0.0)
    scheduler.release_due(0.0)
    second = scheduler.take_for_thread(0.0)
    assert second is not None
    assert scheduler.take_for_thread(0.0) is None
    scheduler.finish(second, 0.001, success=True)
    for _ in range(LaneLimits().in_flight):
        assert scheduler.take_for_thread(0.001) is not None, "as many at once as any lane"


def test_a_failing_lane_holds_up_no_other() -> None:
    scheduler = Scheduler(max_probes=100)
    failing, fine = lane(scheduler, "failing", 10), lane(scheduler, "fine", 10)
    scheduler.charge(failing, 1.0)
    fine.health.last_success = 0.0
    taken = []
    while (event := scheduler.take_for_thread(0.0)) is not None:
        taken.append(event)
    assert [event.lane for event in taken].count(fine) == LaneLimits().in_flight
    scheduler.retry(next(event for event in taken if event.lane is failing), 0.0, 0.0)
    scheduler.release_due(0.0)
    assert scheduler.take_for_thread(0.0) is None
    scheduler.finish(next(event for event in taken if event.lane is fine), 0.0, success=True)
    following = scheduler.take_for_thread(0.0)
    assert following is not None
    assert following.lane is fine
