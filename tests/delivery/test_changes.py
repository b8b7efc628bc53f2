"""A subscription that changes or goes while its events are under way."""

from __future__ import annotations

import contextlib
import threading
from concurrent.futures import CancelledError
from typing import Any

import pytest

from bus_core.data_plane.delivery import Delivery, Target
from bus_core.data_plane.delivery.lane import Lane
from bus_core.data_plane.dispatch import MessageDispatcher
from bus_core.model.message import Message
from bus_core.model.references import ChannelReference, SubscriptionReference
from bus_core.model.specs import DeliverySpec
from tests.delivery.rig import FAST, ORDERS, event_loop, rig
from tests.support import Answer, Request, subscriber, wait_for


class Gate:
    """A subscriber that keeps every `bad` event until it is let go, and answers it 500 then."""

    def __init__(self) -> None:
        self.arrived, self.go = threading.Event(), threading.Event()

    def __call__(self, request: Request) -> Answer:
        if request.body != b"bad":
            return Answer(202)
        self.arrived.set()
        self.go.wait(10)
        return Answer(500)


@pytest.mark.parametrize("on_a_loop", [False, True], ids=["threads", "loop"])
def test_a_dead_letter_sink_that_is_taken_away_while_an_event_is_in_flight(on_a_loop: bool) -> None:
    gate = Gate()
    with contextlib.ExitStack() as stack:
        loop = stack.enter_context(event_loop()) if on_a_loop else None
        to, it = stack.enter_context(subscriber(gate)), stack.enter_context(rig(loop=loop))
        it.open("one", to.url(), retry=0, dead_letter_sink="http://127.0.0.1:9/")
        it.publish(b"first")
        it.settle()
        it.publish(b"bad")
        assert gate.arrived.wait(10)
        it.open("one", to.url(), retry=0)
        gate.go.set()
        it.settle()
        it.publish(b"good")
        wait_for(lambda: [r.body for r in to.requests] == [b"first", b"bad", b"good"], 10, "the lane goes on")
        wait_for(lambda: it.drops == [("default/one", "unavailable", 1)], 10, "the event is counted")


class _Watched(dict[ChannelReference, tuple[Lane, ...]]):
    """The lanes of each channel, and the fewest that a reader without the lock could have seen of one."""

    fewest = 99

    def __setitem__(self, key: ChannelReference, value: tuple[Lane, ...]) -> None:
        super().__setitem__(key, value)
        self.fewest = min(self.fewest, len(value))

    def pop(self, *arguments: Any) -> Any:
        self.fewest = 0
        return super().pop(*arguments)


@pytest.mark.parametrize("others", [0, 2])
def test_a_subscription_that_is_opened_again_is_never_missing(others: int) -> None:
    with rig() as it:
        for number in range(others):
            it.open(f"other{number}", "http://127.0.0.1:9/")
        it.open("one", "http://127.0.0.1:9/")
        lanes = it.delivery._lanes.by_channel = _Watched(it.delivery._lanes.by_channel)
        it.open("one", "http://127.0.0.1:10/", retry=1)
        it.open("one", "http://127.0.0.1:11/", channel=ChannelReference("invoices"))
        it.open("one", "http://127.0.0.1:12/", channel=ORDERS)
    assert {reference.name: len(lanes[reference]) for reference in lanes} == {"orders": others + 1}
    with rig() as it:
        it.open("one", "http://127.0.0.1:9/")
        lanes = it.delivery._lanes.by_channel = _Watched(it.delivery._lanes.by_channel)
        it.open("one", "http://127.0.0.1:10/", retry=1)
        assert lanes.fewest >= 1


def test_what_ends_during_the_drain_after_its_subscription_went_is_counted() -> None:
    gate = Gate()
    with subscriber(gate) as to, rig() as it:
        one, two = it.open("one", to.url()), it.open("two", to.url())
        it.publish(b"bad")
        assert gate.arrived.wait(10)
        wait_for(lambda: len(to.requests) == 2, 10, "both are in flight")
        future = it.delivery.submit(two, Message({}, b"more"))
        it.delivery.close(one)
        it.delivery.close(two)
        drain = threading.Thread(target=it.delivery.drain, args=(10,))
        drain.start()
        wait_for(lambda: it.delivery._engine._drain.refusing, 10, "the drain has begun")
        gate.go.set()
        drain.join(10)
        assert sorted(it.drops) == [("default/one", "unsubscribed", 1), ("default/two", "unsubscribed", 1)]
    with pytest.raises(CancelledError):
        future.result(0)


def test_a_fault_in_settling_costs_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    dispatcher = MessageDispatcher()
    delivery = Delivery(dispatcher, prompt_threads=1, max_threads=4)
    with subscriber() as to:
        for name in ("one", "two"):
            delivery.open(Target(ORDERS, SubscriptionReference(name), to.url(name), "", DeliverySpec(**FAST)))
        settle = delivery._engine._scheduler.finish

        def fails_once(*arguments: Any, **options: Any) -> None:
            monkeypatch.setattr(delivery._engine._scheduler, "finish", settle)
            raise RuntimeError("a fault")

        monkeypatch.setattr(delivery._engine._scheduler, "finish", fails_once)
        delivery.submit(SubscriptionReference("one"), Message({}, b"x"))
        wait_for(lambda: delivery._engine._scheduler.finish == settle, 10, "the fault has happened")
        delivery.submit(SubscriptionReference("two"), Message({}, b"x")).result(10)
    delivery.drain(0)
    dispatcher.close()


def test_nothing_is_kept_of_a_subscription_that_went() -> None:
    with subscriber(lambda _: Answer(500)) as bad, subscriber() as sink, rig() as it:
        for sinks in (None, sink.url()):
            reference = it.open("one", bad.url(), retry=0, dead_letter_sink=sinks)
            it.publish(b"x")
            with pytest.raises(Exception, match="500") if sinks is None else contextlib.nullcontext():
                it.delivery.submit(reference, Message({}, b"y")).result(10)
            it.settle()
            it.delivery.close(reference)
        it.delivery._engine.flush()
        assert not it.delivery._engine._reporter._closed
        assert not list(it.delivery._lanes)
        assert it.delivery.depths() == {}
