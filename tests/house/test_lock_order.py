"""The recorder of lock order finds two orders, and stays silent about one."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from tests.house.lock_order import LockOrder, Recorded


@pytest.fixture
def order() -> LockOrder:
    return LockOrder()


def take(*locks: Recorded) -> None:
    """Take these locks one inside the other, on a thread of their own."""

    def run(rest: tuple[Recorded, ...]) -> None:
        if rest:
            with rest[0]:
                run(rest[1:])

    thread = threading.Thread(target=run, args=(locks,))
    thread.start()
    thread.join()


def test_an_inversion_is_found(order: LockOrder) -> None:
    a, b = (order.recorded(threading.Lock(), name) for name in "ab")
    take(a, b)
    assert order.cycles() == []
    take(b, a)
    assert order.cycles() == ["a and b are taken in both orders"]


def test_an_inversion_by_way_of_a_third_lock_is_found(order: LockOrder) -> None:
    a, b, c = (order.recorded(threading.Lock(), name) for name in "abc")
    take(a, b)
    take(b, c)
    assert order.cycles() == []
    take(c, a)
    assert "a and c are taken in both orders" in order.cycles()


def test_what_is_given_back_is_not_held(order: LockOrder) -> None:
    a, b = order.recorded(threading.RLock(), "a"), order.recorded(threading.Lock(), "b")
    take(a, a, b)
    take(b)
    take(a)
    assert b.acquire(timeout=1)
    take(a)
    b.release()
    assert order.cycles() == []


@pytest.fixture
def installed(order: LockOrder) -> Iterator[LockOrder]:
    order.install()
    try:
        yield order
    finally:
        order.remove()


def test_only_our_own_locks_are_recorded(installed: LockOrder) -> None:
    names = {"__name__": "bus_core.data_plane.delivery.engine"}
    exec("import threading\nours = threading.Lock()\nchanged = threading.Condition()", names)
    assert isinstance(names["ours"], Recorded)
    assert not isinstance(threading.Lock(), Recorded)
    with names["changed"]:  # type: ignore[attr-defined]
        names["changed"].wait(0.01)  # type: ignore[attr-defined]
        names["changed"].notify_all()  # type: ignore[attr-defined]
        with names["ours"]:
            pass
    with names["ours"], names["changed"]:  # type: ignore[attr-defined]
        pass
    assert len(installed.cycles()) == 1
