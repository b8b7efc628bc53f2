"""What the event loop delivers itself, on connections that threads have opened: nothing may be lost or sent twice."""

from __future__ import annotations

import asyncio
import itertools
import socket
import threading
import time

import pytest

from bus_core.data_plane.delivery import loop_executor
from bus_core.driver.hookspecs import Outcome
from bus_core.model.message import Message
from bus_core.model.references import ChannelReference
from tests.delivery.looping import ByThread, bodies, connect, serve
from tests.delivery.rig import rig
from tests.dispatch.servers import ACCEPTED, Conversation, Server
from tests.support import Answer, Request, subscriber, wait_for


def test_a_lane_with_an_idle_connection_needs_no_thread(loop: asyncio.AbstractEventLoop, by_thread: ByThread) -> None:
    server = Server(serve)
    try:
        with rig(loop=loop) as it:
            connect(it, it.open("one", server.url))
            for body in bodies(200):  # one at a time: the connection is there
                it.publish(body)
                it.settle()
            assert [request.body for request in server.requests] == [b"first", *bodies(200)]
            assert by_thread.bodies == [b"first"]
            assert server.connections == 1
    finally:
        server.close()


def test_a_flood_is_delivered_once_each(loop: asyncio.AbstractEventLoop, by_thread: ByThread) -> None:
    with subscriber() as server, rig(loop=loop) as it:
        for name in ("a", "b", "c"):
            connect(it, it.open(name, server.url(name)))
        sent = bodies(1000)
        it.publish(*sent)
        it.settle(20)
        for name in ("a", "b", "c"):
            assert sorted(server.bodies(name)) == sorted([*sent, b"first"])
        assert len(by_thread.bodies) < 300, "threads only open connections"


def test_events_published_on_the_loop_itself(loop: asyncio.AbstractEventLoop, by_thread: ByThread) -> None:
    """As the receiver does: the request goes out before `publish` returns."""
    with subscriber() as server, rig(loop=loop) as it:
        connect(it, it.open("one", server.url()))

        async def publish() -> None:
            it.publish(b"now")

        asyncio.run_coroutine_threadsafe(publish(), loop).result(5)
        it.settle()
        assert server.bodies() == [b"first", b"now"]
        assert by_thread.bodies == [b"first"]


def test_the_order_of_a_key_holds_through_failures(loop: asyncio.AbstractEventLoop) -> None:
    numbers = itertools.count()
    with subscriber(lambda _: Answer(500) if next(numbers) % 7 == 3 else Answer()) as server, rig(loop=loop) as it:
        one = it.open("one", server.url(), retry=20)
        connect(it, one)
        futures = [it.delivery.submit(one, Message({"ce-id": "1"}, body), key="k") for body in bodies(100)]
        assert {future.result(20) for future in futures} == {Outcome.DELIVERED}
        seen = server.bodies()[1:]
        assert seen == sorted(seen)
        assert sorted(set(seen)) == bodies(100)


@pytest.mark.parametrize("known", [True, False], ids=["its connection is open", "it is met for the first time"])
def test_replies(loop: asyncio.AbstractEventLoop, by_thread: ByThread, known: bool) -> None:
    with subscriber(lambda _: Answer(200, b"reply", {"ce-id": "r"})) as server, subscriber() as taker:
        with rig(loop=loop) as it:
            one = it.open("one", server.url(), reply_to=taker.url())
            if known:
                connect(it, one)
            else:
                server.behave = lambda _: Answer()
                connect(it, one)
                server.behave = lambda _: Answer(200, b"reply", {"ce-id": "r"})
            it.publish(b"event")
            it.settle()
            assert server.bodies() == [b"first", b"event"], "the event is not sent again for its reply's sake"
            assert taker.bodies() == [b"reply"] * (2 if known else 1)
            assert by_thread.bodies == ([b"first"] if known else [b"first", b"reply"])


def test_a_large_event_takes_a_thread(loop: asyncio.AbstractEventLoop, by_thread: ByThread) -> None:
    with subscriber() as server, rig(loop=loop) as it:
        connect(it, it.open("one", server.url()))
        large = b"x" * 200_000
        it.publish(b"small", large, b"small")
        it.settle()
        assert sorted(server.bodies()) == sorted([b"first", b"small", b"small", large])
        assert by_thread.bodies[:2] == [b"first", large]


def test_a_subscriber_that_reads_slowly_gets_everything(loop: asyncio.AbstractEventLoop) -> None:
    """The socket's buffer is full in the middle of a request: the loop goes on with it when there is room."""

    def behave(conversation: Conversation) -> None:
        conversation.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16384)
        while (head := conversation.read_head()) is not None:
            length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
            if length > 1000:
                time.sleep(0.05)  # the load, not a wait
            received.append(b"".join(conversation.body(length)))
            conversation.send(ACCEPTED)

    received: list[bytes] = []
    server = Server(behave)
    try:
        with rig(loop=loop) as it:
            one = it.open("one", server.url)
            connect(it, one)
            sent = [bytes([65 + number]) * 60_000 for number in range(4)]
            for body in sent:
                it.delivery.submit(one, Message({"ce-id": "1"}, body), key="k")
            it.settle(20)
            assert received == [b"first", *sent]
    finally:
        server.close()


def test_when_the_loop_has_all_it_can_take_threads_go_on(
    loop: asyncio.AbstractEventLoop, by_thread: ByThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop_executor, "FEW", 2)
    monkeypatch.setattr(loop_executor, "MOST", 2)
    go_on = threading.Event()

    def behave(request: Request) -> Answer:
        if request.body.startswith(b"hang"):
            go_on.wait(10)
        return Answer()

    with subscriber(behave) as server, subscriber() as other, rig(loop=loop) as it:
        one = it.open("one", server.url(), timeout=8.0)
        two = it.open("two", other.url(), channel=ChannelReference("beside"))
        for reference in (one, two):
            connect(it, reference)
        held = [it.delivery.submit(one, Message({"ce-id": "1"}, b"hang-%d" % number)) for number in range(5)]
        wait_for(lambda: sum(body.startswith(b"hang") for body in server.bodies()) >= 2)
        for body in bodies(20):
            assert it.delivery.submit(two, Message({"ce-id": "1"}, body)).result(5) is Outcome.DELIVERED
        go_on.set()
        assert {future.result(10) for future in held} == {Outcome.DELIVERED}
        count = len(by_thread.bodies)
        for body in bodies(20):
            assert it.delivery.submit(two, Message({"ce-id": "1"}, body)).result(5) is Outcome.DELIVERED
        assert len(by_thread.bodies) <= count + 2, "the loop has taken over again"
