"""Faults that delivery survives: threads that cannot be started, errors in its timers, callbacks that raise."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from typing import Any

import pytest

from bus_core import telemetry
from bus_core.data_plane.delivery import Delivery, LaneLimits, Target, attempt, dead_letter
from bus_core.data_plane.delivery.connection_slots import ConnectionSlots
from bus_core.data_plane.dispatch import Connection, MessageDispatcher
from bus_core.driver.hookspecs import Outcome
from bus_core.model.message import Message
from bus_core.model.references import SubscriptionReference
from bus_core.model.resources import DeliverySpec
from tests.delivery.rig import FAST, ORDERS, event_loop, rig
from tests.support import Answer, Request, free_port, subscriber, wait_for


class ThreadLimit:
    """While it is on, delivery's threads of these names cannot be started, as under a limit on processes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.on = True
        self.names: tuple[str, ...] = ("delivery-timer", "delivery-worker", "delivery-time", "delivery")
        self.refused = 0
        start = threading.Thread.start

        def limited(thread: threading.Thread) -> None:
            if self.on and thread.name in self.names:
                self.refused += 1
                raise RuntimeError("can't start new thread")
            start(thread)

        monkeypatch.setattr(threading.Thread, "start", limited)


@pytest.fixture
def limit(monkeypatch: pytest.MonkeyPatch) -> ThreadLimit:
    return ThreadLimit(monkeypatch)


def test_an_event_waits_for_a_thread_that_cannot_be_started(
    limit: ThreadLimit, caplog: pytest.LogCaptureFixture
) -> None:
    with subscriber() as server, rig() as it:
        it.open("one", server.url())
        it.publish(b"first", b"second")
        assert limit.refused >= 1
        limit.on = False

        def call_again() -> bool:
            it.publish(b"later")
            return b"first" in server.bodies()

        wait_for(call_again, 10, "the next calls start the threads")
        it.settle()
        assert {b"first", b"second", b"later"} == set(server.bodies())
    said = [record for record in caplog.records if "could not be started" in record.getMessage()]
    assert len(said) == 2, "once for the timer, once for the workers"
    assert {record.levelno for record in said} == {logging.ERROR}


def test_the_timer_starts_the_workers_that_could_not_be_started(limit: ThreadLimit) -> None:
    limit.names = ("delivery-worker", "delivery")
    with subscriber() as server, rig() as it:
        it.open("one", server.url())
        it.publish(b"first")
        assert limit.refused
        limit.on = False
        wait_for(lambda: server.bodies() == [b"first"], 10, "it is delivered without another call")


def test_the_event_loop_stands_in_for_the_timer(limit: ThreadLimit) -> None:
    with event_loop() as loop, subscriber() as server, rig(loop=loop) as it:
        it.open("one", server.url())
        it.publish(b"first")
        assert limit.refused
        limit.on = False
        wait_for(lambda: server.bodies() == [b"first"], 10, "it is delivered without another call")


def test_a_drain_without_any_thread_ends_in_time(limit: ThreadLimit) -> None:
    with rig() as it:
        it.open("one", f"http://127.0.0.1:{free_port()}/")
        it.publish(b"first")
        began = time.monotonic()
        assert it.delivery.drain(0.3) == 1
        assert time.monotonic() - began < 5
        assert it.dropped("shutdown") == 1


def test_a_drain_releases_retries_when_the_timer_cannot_be_started(limit: ThreadLimit) -> None:
    limit.names = ("delivery-timer", "delivery-time")
    numbers = iter(range(100))
    with subscriber(lambda _: Answer(500 if next(numbers) < 3 else 202)) as server, rig() as it:
        it.open("one", server.url(), backoff_delay=0.05)
        it.publish(b"first")
        assert it.delivery.drain(10) == 0
        assert server.bodies() == [b"first"] * 4


def test_the_timer_survives_an_error(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    numbers = iter(range(100))
    with subscriber(lambda _: Answer(500 if next(numbers) < 3 else 202)) as server, rig() as it:
        scheduler = it.delivery._engine._scheduler
        release_due = scheduler.release_due
        errors = iter([RuntimeError("a fault")])

        def fails_once(now: float) -> int:
            for error in errors:
                raise error
            return release_due(now)

        monkeypatch.setattr(scheduler, "release_due", fails_once)
        it.open("one", server.url(), backoff_delay=0.2)
        it.publish(b"x")
        it.settle()
        assert server.bodies() == [b"x"] * 4
    assert "RuntimeError: a fault" in caplog.text


@pytest.mark.parametrize("place", [(ConnectionSlots, "drop_unused"), (Connection, "late")], ids=["sweep", "error"])
def test_the_sweep_for_late_attempts_survives_an_error(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, place: tuple[type, str]
) -> None:
    hang = threading.Event()

    def behave(request: Request) -> Answer:
        if request.body == b"hang":
            hang.wait(10)
        return Answer()

    original = getattr(*place)
    errors = iter([RuntimeError("a fault")])

    def fails_once(*arguments: Any) -> Any:
        for error in errors:
            raise error
        return original(*arguments)

    with event_loop() as loop, subscriber(behave) as server, rig(loop=loop) as it:
        one = it.open("one", server.url(), timeout=0.5, retry=0)
        it.delivery.submit(one, Message({}, b"first")).result(5)
        monkeypatch.setattr(*place, fails_once)
        futures = [it.delivery.submit(one, Message({}, b"hang")) for _ in range(3)]
        began = time.monotonic()
        assert all("500" not in str(future.exception(5)) for future in futures)
        assert time.monotonic() - began < 3
        hang.set()
    assert "RuntimeError: a fault" in caplog.text


def test_events_go_to_threads_once_the_event_loop_has_ended() -> None:
    loop = asyncio.new_event_loop()
    with subscriber() as server, rig() as it:
        it.delivery.attach(loop)
        it.open("one", server.url())
        it.publish(b"first")
        it.settle()
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()
        it.publish(b"second")
        it.publish(b"third")
        it.settle()
        assert sorted(server.bodies()) == [b"first", b"second", b"third"]


class Stop(BaseException):
    """Neither a driver's callback nor a future catches this."""


@pytest.mark.parametrize("looping", [False, True], ids=["threads", "loop"])
def test_a_callback_that_raises_costs_no_thread(looping: bool, caplog: pytest.LogCaptureFixture) -> None:
    def stop(_: object) -> None:
        raise Stop("from a callback")

    dispatcher = MessageDispatcher()
    delivery = Delivery(dispatcher, prompt_threads=1, max_threads=1)
    one = SubscriptionReference("one")
    with event_loop() as loop, subscriber() as server:
        if looping:
            loop.call_soon_threadsafe(delivery.attach, loop)
        delivery.open(Target(ORDERS, one, server.url(), "", DeliverySpec(**FAST)))
        for number in range(5):
            future = delivery.submit(one, Message({}, b"%d" % number))
            future.add_done_callback(stop) if not future.done() else None
            assert future.result(5) is Outcome.DELIVERED
        delivery.drain(5)
    dispatcher.close()
    assert "from a callback" in caplog.text


def test_a_shed_event_is_counted_when_the_drain_comes_in_between(monkeypatch: pytest.MonkeyPatch) -> None:
    drains: list[threading.Thread] = []
    make = dead_letter.dead_letter

    def drain_meanwhile(*arguments: Any) -> Message:
        if not drains:
            drains.append(threading.Thread(target=it.delivery.drain, args=(0,)))
            drains[0].start()
            drains[0].join(0.5)
        return make(*arguments)

    with rig(LaneLimits(events=1, stall_after=0.05)) as it:
        nobody = f"http://127.0.0.1:{free_port()}/"
        it.open("one", nobody, backoff_delay=30.0, dead_letter_sink=nobody)
        it.publish(b"waits")
        time.sleep(0.1)  # the lane is stalled then
        monkeypatch.setattr(attempt, "dead_letter", drain_meanwhile)
        it.publish(b"shed")
        drains[0].join(10)
        it.delivery._engine.flush()
        assert it.dropped("shutdown") == 2, "the one that waited and the one that was shed"


@pytest.fixture
def gauge(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """The series of the gauge of lanes' depths."""
    series: dict[str, float] = {}
    monkeypatch.setattr(telemetry.lane_depth, "set", lambda value, *labels: series.update({labels[0]: value}))
    monkeypatch.setattr(telemetry.lane_depth, "forget", lambda *labels: series.pop(labels[0], None))
    return series


def test_the_series_of_a_sink_goes_with_its_lane(gauge: dict[str, float]) -> None:
    go_on = threading.Event()

    def behave(_: Request) -> Answer:
        go_on.wait(10)
        return Answer()

    with subscriber(behave) as sink, subscriber(lambda _: Answer(400)) as server, rig() as it:
        it.open("one", server.url(), dead_letter_sink=sink.url())
        it.publish(b"x")
        name = f"sink {sink.url()} of default"
        wait_for(lambda: gauge.get(name) == 1, 5, "its dead letter shows")
        go_on.set()
        wait_for(lambda: name not in it.delivery.depths(), 5, "the sink's lane is gone")
        it.delivery._engine.flush()
        assert name not in gauge
