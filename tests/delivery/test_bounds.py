"""The bounds of lanes as a publisher meets them: all or none, by number and by bytes, and one payload held once."""

from __future__ import annotations

import threading
import tracemalloc

import pytest

from bus_core.data_plane.delivery import LaneLimits
from bus_core.data_plane.delivery.lane import Lane
from bus_core.data_plane.delivery.scheduler import Scheduler
from bus_core.model.errors import BusyError
from bus_core.model.message import Message
from tests.delivery.model import of_size
from tests.delivery.rig import rig
from tests.support import free_port, subscriber, wait_for


def test_all_or_none() -> None:
    with subscriber() as good, rig(LaneLimits(events=5)) as it:
        it.open("a", good.url("a"))
        it.open("dead", f"http://127.0.0.1:{free_port()}/", backoff_delay=30.0)
        it.open("z", good.url("z"))
        it.publish(*[b"%d" % number for number in range(5)])
        wait_for(lambda: it.delivery.depths() == {"default/a": 0, "default/dead": 5, "default/z": 0})
        for _ in range(20):
            with pytest.raises(BusyError, match="default/dead is full"):
                it.publish(b"refused")
        assert len(good.requests) == 10
        assert b"refused" not in good.bodies()


def test_bytes_are_a_bound_too() -> None:
    with rig(LaneLimits(bytes=100_000)) as it:
        it.open("dead", f"http://127.0.0.1:{free_port()}/", backoff_delay=30.0)
        it.publish(*[bytes(30_000)] * 3)
        with pytest.raises(BusyError, match="3 events"):
            it.publish(bytes(30_000))


def test_an_event_over_the_bound_is_taken_by_an_empty_lane() -> None:
    with subscriber() as server, rig(LaneLimits(bytes=1000)) as it:
        it.open("one", server.url())
        it.publish(bytes(50_000))
        it.settle()
        assert server.bodies() == [bytes(50_000)]


def test_lanes_that_share_a_payload_hold_it_once() -> None:
    size = 1 << 20
    with rig() as it:
        for number in range(20):
            it.open(f"dead-{number}", f"http://127.0.0.1:{free_port()}/", backoff_delay=30.0)
        tracemalloc.start()
        try:
            before = tracemalloc.get_traced_memory()[0]
            for _ in range(8):
                it.publish(bytes(size))
            held = tracemalloc.get_traced_memory()[0] - before
        finally:
            tracemalloc.stop()
        assert sum(it.delivery.depths().values()) == 160
        print(f"8 events of 1 MiB in 20 lanes: {held / size:.2f} MiB")
        assert held < 10 * size


def test_a_waiting_event_costs_its_record_only() -> None:
    number = 100_000
    scheduler = Scheduler(max_probes=1)
    lane = Lane("one", LaneLimits(events=number, bytes=1 << 40), None, 0.0)
    message, encoded = Message({}, b""), of_size(256)
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(number):
            scheduler.publish([lane], message, encoded, 0.0)
            event = scheduler.take_for_thread(0.0)
            assert event is not None
            scheduler.retry(event, 60.0, 0.0)
        each = (tracemalloc.get_traced_memory()[0] - before) / number
    finally:
        tracemalloc.stop()
    print(f"{each:.0f} bytes each")
    assert each < 600
    assert threading.active_count() < 20
    with pytest.raises(BusyError):
        scheduler.publish([lane], message, encoded, 1.0)
    assert scheduler.next_due == 60.0
    assert scheduler.release_due(59.9) == 0
    assert scheduler.release_due(60.0) == number
    assert scheduler.take_for_thread(60.0) is not None
