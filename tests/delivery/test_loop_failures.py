"""Attempts of the event loop that fail, hang, or outlive their subscription: nothing may be lost or sent twice."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from bus_core.data_plane.delivery import LaneLimits
from bus_core.driver.hookspecs import Outcome
from bus_core.model.message import Message
from bus_core.model.references import ChannelReference
from tests.delivery.looping import ByThread, bodies, connect
from tests.delivery.rig import rig
from tests.dispatch.servers import ACCEPTED, Conversation, Server, answer
from tests.support import Answer, Request, subscriber, wait_for


@pytest.mark.parametrize("reset", [False, True], ids=["closed", "reset"])
def test_an_idle_connection_that_ends_is_noticed(
    loop: asyncio.AbstractEventLoop, by_thread: ByThread, reset: bool
) -> None:
    """The next event meets no closed connection: it is not tried twice."""

    def behave(conversation: Conversation) -> None:
        conversation.read()
        conversation.send(ACCEPTED)
        if reset:
            conversation.reset()

    server = Server(behave)
    try:
        with rig(loop=loop) as it:
            one = it.open("one", server.url, retry=0)
            for body in bodies(20):
                it.delivery.submit(one, Message({"ce-id": "1"}, body)).result(5)
                wait_for(lambda: server.closed == server.connections)
            assert [request.body for request in server.requests] == bodies(20)
    finally:
        server.close()


def test_a_subscriber_that_keeps_no_connection(loop: asyncio.AbstractEventLoop) -> None:
    with subscriber(lambda _: Answer(202, b"", {"connection": "close"})) as server, rig(loop=loop) as it:
        it.open("one", server.url(), retry=0)
        it.publish(*bodies(100))
        it.settle()
        assert sorted(server.bodies()) == bodies(100)
        assert not it.drops


def test_one_that_hangs_ends_by_its_deadline_and_holds_up_nobody(loop: asyncio.AbstractEventLoop) -> None:
    hang = threading.Event()

    def behave(conversation: Conversation) -> None:
        while (request := conversation.read()) is not None:
            if request.body == b"hang":
                hang.wait(10)
                return
            conversation.send(ACCEPTED)

    server = Server(behave)
    try:
        with subscriber() as other, subscriber() as sink, rig(loop=loop) as it:
            one = it.open("one", server.url, timeout=0.3, retry=0, dead_letter_sink=sink.url())
            beside = ChannelReference("beside")
            connect(it, it.open("two", other.url(), channel=beside))
            connect(it, one)
            began = time.monotonic()
            future = it.delivery.submit(one, Message({"ce-id": "1"}, b"hang"))
            it.publish(*bodies(50), channel=beside)
            wait_for(lambda: len(other.bodies()) == 51)
            assert not future.done()
            assert future.result(5) is Outcome.DEAD_LETTERED
            assert 0.3 <= time.monotonic() - began < 2
            assert sink.requests[0].headers["ce-knativeerrorreason"] == "timeout"
    finally:
        hang.set()
        server.close()


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (b"nonsense\r\n\r\n", "not valid HTTP"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 9999999\r\n\r\n", "larger than the cap"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc", "in the middle of its answer"),
        (b"", "without an answer"),
        (answer(b"", "500 Oops"), "answered 500"),
    ],
)
def test_a_bad_answer_is_a_failure_like_any_other(loop: asyncio.AbstractEventLoop, said: bytes, reason: str) -> None:
    def behave(conversation: Conversation) -> None:
        while (request := conversation.read()) is not None:
            if request.body == b"bad":
                conversation.send(said)
                return
            conversation.send(ACCEPTED)

    server = Server(behave)
    try:
        with rig(loop=loop) as it:
            one = it.open("one", server.url, retry=0)
            connect(it, one)
            future = it.delivery.submit(one, Message({"ce-id": "1"}, b"bad"))
            assert reason in str(future.exception(5))
            assert it.delivery.submit(one, Message({"ce-id": "1"}, b"good")).result(5) is Outcome.DELIVERED
    finally:
        server.close()


def test_a_subscription_that_goes_while_its_event_is_in_flight(loop: asyncio.AbstractEventLoop) -> None:
    go_on = threading.Event()

    def behave(request: Request) -> Answer:
        if request.body == b"late":
            go_on.wait(10)
        return Answer(500 if request.body == b"late" else 202)

    with subscriber(behave) as server, rig(LaneLimits(), loop) as it:
        one = it.open("one", server.url())
        connect(it, one)
        it.publish(b"late")
        wait_for(lambda: b"late" in server.bodies())
        it.delivery.close(one)
        go_on.set()
        wait_for(lambda: it.dropped("unsubscribed") == 1)


def test_the_drain_waits_for_attempts_and_gives_up_those_that_hang(loop: asyncio.AbstractEventLoop) -> None:
    go_on = threading.Event()

    def behave(request: Request) -> Answer:
        if request.body == b"slow":
            time.sleep(0.2)  # the subscriber's own time
        elif request.body == b"hang":
            go_on.wait(10)
        return Answer()

    with subscriber(behave) as server, rig(loop=loop) as it:
        one = it.open("one", server.url(), timeout=20.0)
        connect(it, one)
        slow = it.delivery.submit(one, Message({"ce-id": "1"}, b"slow"))
        hung = it.delivery.submit(one, Message({"ce-id": "1"}, b"hang"))
        wait_for(lambda: len(server.bodies()) == 3)
        assert it.delivery.drain(1.0) == 1
        assert slow.result(0) is Outcome.DELIVERED
        assert hung.cancelled()
        go_on.set()
