"""What failing subscribers cost: together at most their share of a core, whatever their number."""

from __future__ import annotations

import pytest

from bus_core.data_plane.delivery.lane import Lane, LaneLimits
from bus_core.data_plane.delivery.scheduler import FAILING_SHARE, Board
from bus_core.model.message import Message

MESSAGE = Message({}, b"")
COST = 0.001


def lane(board: Board, name: str, events: int) -> Lane:
    made = Lane(name, LaneLimits(), None, 0.0)
    for _ in range(events):
        board.publish([made], MESSAGE, None, 100, 0.0)
    return made


@pytest.mark.parametrize("number", [1, 20])
def test_failing_lanes_share_what_they_may_cost(number: int) -> None:
    board = Board(suspects=100)
    lanes = [lane(board, str(index), 1000) for index in range(number)]
    tries = dict.fromkeys(lanes, 0)
    now, end = 0.0, 10.0
    while now < end:
        while (item := board.take(now)) is not None:
            tries[item.lane] += 1
            item.lane.toll = COST
            board.retry(item, now, now)
        due = board.next_due
        assert due is not None
        now = max(now + 1e-6, due)
        board.wake(now)
    allowed = end * FAILING_SHARE / COST
    assert allowed * 0.9 <= sum(tries.values()) <= allowed * 1.1 + number
    assert max(tries.values()) <= min(tries.values()) * 1.5 + 1, "they take turns"


def test_a_success_ends_the_pacing() -> None:
    board = Board(suspects=100)
    failing = lane(board, "failing", 10)
    first = board.take(0.0)
    assert first is not None
    failing.toll = COST
    board.retry(first, 0.0, 0.0)
    board.wake(0.0)
    second = board.take(0.0)
    assert second is not None
    assert board.take(0.0) is None
    board.finish(second, 0.001, success=True)
    for _ in range(LaneLimits().in_flight):
        assert board.take(0.001) is not None, "as many at once as any lane"


def test_a_failing_lane_holds_up_no_other() -> None:
    board = Board(suspects=100)
    failing, fine = lane(board, "failing", 10), lane(board, "fine", 10)
    failing.toll = 1.0
    fine.last_success = 0.0
    taken = []
    while (item := board.take(0.0)) is not None:
        taken.append(item)
    assert [item.lane for item in taken].count(fine) == LaneLimits().in_flight
    board.retry(next(item for item in taken if item.lane is failing), 0.0, 0.0)
    board.wake(0.0)
    assert board.take(0.0) is None
    board.finish(next(item for item in taken if item.lane is fine), 0.0, success=True)
    following = board.take(0.0)
    assert following is not None
    assert following.lane is fine
