"""`submit`: how it ends for one subscription, and the order of events of one key."""

from __future__ import annotations

import threading
from concurrent.futures import CancelledError
from itertools import count

import pytest

from bus_core.data_plane.delivery import LaneLimits
from bus_core.driver.hookspecs import Outcome
from bus_core.model.errors import BusyError, UnavailableError, UnknownSubscriptionError
from bus_core.model.message import Message
from bus_core.model.references import SubscriptionReference
from tests.delivery.rig import rig
from tests.support import Answer, Request, free_port, subscriber, wait_for


def message(body: bytes = b"x") -> Message:
    return Message({"ce-id": "1"}, body)


def test_delivered() -> None:
    with subscriber() as server, rig() as it:
        assert it.delivery.submit(it.open("one", server.url()), message()).result(5) is Outcome.DELIVERED


def test_dead_lettered_once_the_sink_has_it() -> None:
    taken = threading.Event()
    with subscriber(lambda _: Answer(400)) as bad, rig() as it:
        with subscriber(lambda _: Answer() if taken.is_set() else Answer(500)) as sink:
            future = it.delivery.submit(it.open("one", bad.url(), dead_letter_sink=sink.url()), message())
            wait_for(lambda: sink.requests)
            assert not future.done(), "unresolved while the sink does not take it"
            taken.set()
            assert future.result(5) is Outcome.DEAD_LETTERED


def test_rejected_is_counted() -> None:
    with subscriber(lambda _: Answer(400)) as bad, rig() as it:
        assert it.delivery.submit(it.open("one", bad.url()), message()).result(5) is Outcome.REJECTED
        it.close()
        assert it.dropped("status") == 1


def test_unavailable_when_the_tries_are_spent_without_a_sink() -> None:
    with subscriber(lambda _: Answer(500)) as bad, rig() as it:
        with pytest.raises(UnavailableError, match="answered 500"):
            it.delivery.submit(it.open("one", bad.url(), retry=1), message()).result(5)
        it.close()
        assert not it.drops, "it is the driver's still, and not lost"


def test_unavailable_when_the_sink_is_full() -> None:
    with subscriber(lambda _: Answer(400)) as bad, rig(LaneLimits(events=1)) as it:
        one = it.open("one", bad.url(), dead_letter_sink=f"http://127.0.0.1:{free_port()}/")
        first = it.delivery.submit(one, message())
        wait_for(lambda: it.delivery.depths()["default/one"] == 0)
        with pytest.raises(UnavailableError):
            it.delivery.submit(one, message()).result(5)
        assert not first.done()
        it.close()
        assert not it.dropped("sink_full"), "nothing was dropped: the driver has it"


def test_unknown_subscription() -> None:
    with rig() as it, pytest.raises(UnknownSubscriptionError, match="default/nobody"):
        it.delivery.submit(SubscriptionReference("nobody"), message())


def test_busy_when_full() -> None:
    with rig(LaneLimits(events=3)) as it:
        one = it.open("one", f"http://127.0.0.1:{free_port()}/", backoff_delay=30.0)
        for _ in range(3):
            it.delivery.submit(one, message())
        with pytest.raises(BusyError, match="full"):
            it.delivery.submit(one, message())


def test_busy_when_stalled_although_there_is_room() -> None:
    with rig(LaneLimits(stall_after=0.05)) as it:
        one = it.open("one", f"http://127.0.0.1:{free_port()}/", retry=100, backoff_delay=30.0)
        it.delivery.submit(one, message())

        def is_busy() -> bool:
            try:
                it.delivery.submit(one, message())
            except BusyError as error:
                assert "stalled" in str(error)
                return True
            return False

        wait_for(is_busy)


def test_cancelled_when_the_subscription_goes_or_the_bus_stops() -> None:
    with rig() as it:
        target = f"http://127.0.0.1:{free_port()}/"
        one, two = (it.open(name, target, backoff_delay=30.0) for name in ("one", "two"))
        gone, stopped = it.delivery.submit(one, message()), it.delivery.submit(two, message())
        it.delivery.close(one)
        with pytest.raises(CancelledError):
            gone.result(5)
        assert not stopped.done()
        assert it.delivery.drain(0.01) == 1
        with pytest.raises(CancelledError):
            stopped.result(5)
        with pytest.raises(BusyError, match="stopping"):
            it.delivery.submit(two, message())
        assert not it.drops


def test_events_of_a_key_are_serial_and_retried_in_place() -> None:
    numbers = count()
    flying: dict[bytes, int] = {}
    lock = threading.Lock()
    together: list[bytes] = []

    def behave(request: Request) -> Answer:
        key = request.body.split(b"-")[0]
        with lock:
            flying[key] = flying.get(key, 0) + 1
            if flying[key] > 1:
                together.append(request.body)
        answer = Answer(500) if next(numbers) % 3 == 0 else Answer()
        with lock:
            flying[key] -= 1
        return answer

    with subscriber(behave) as server, rig() as it:
        one = it.open("one", server.url(), retry=20)
        futures = [
            it.delivery.submit(one, message(b"%d-%03d" % (key, number)), key=str(key))
            for number in range(40)
            for key in range(5)
        ]
        assert {future.result(20) for future in futures} == {Outcome.DELIVERED}
        assert not together
        for key in range(5):
            seen = [body for body in server.bodies() if body.startswith(b"%d-" % key)]
            assert seen == sorted(seen), "a later one of the key came before an earlier one was done"
            assert len(set(seen)) == 40


def test_a_key_that_waits_holds_up_no_other_key() -> None:
    def behave(request: Request) -> Answer:
        return Answer(503, b"", {"retry-after": "60"}) if request.body.startswith(b"stuck") else Answer()

    with subscriber(behave) as server, rig() as it:
        one = it.open("one", server.url())
        stuck = [it.delivery.submit(one, message(b"stuck-%d" % number), key="stuck") for number in range(3)]
        fine = [it.delivery.submit(one, message(b"fine-%d" % number), key="fine") for number in range(20)]
        assert {future.result(5) for future in fine} == {Outcome.DELIVERED}
        assert server.bodies().count(b"stuck-0") == 1
        assert not any(future.done() for future in stuck)
        assert b"stuck-1" not in server.bodies()
