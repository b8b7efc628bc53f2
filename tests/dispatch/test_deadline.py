"""One deadline over connecting, sending and receiving, however slowly a subscriber goes about it."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator

import pytest

from bus_core.data_plane.dispatch import MessageDispatcher
from bus_core.model.errors import DeadlineError
from bus_core.model.message import Message
from tests.dispatch.servers import ACCEPTED, Conversation, answering, serving
from tests.support import wait_for

EVENT = Message({"ce-id": "1"}, b"payload")


@pytest.fixture
def dispatcher() -> Iterator[MessageDispatcher]:
    made = MessageDispatcher(timeout=5)
    yield made
    made.close()


DRIPS = {
    "nothing": None,
    "a status line": b"HTTP/1.1 200 OKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKKK",
    "interim answers": b"HTTP/1.1 100 Continue\r\n\r\n",
    "a body": b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n" + b"x" * 1000,
    "chunks": b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 1000,
    "a refusal": b"HTTP/1.1 500 Oops\r\n\r\n" + b"x" * 1000,
}


@pytest.mark.parametrize("name", DRIPS)
def test_a_drip_is_cut_at_the_deadline(dispatcher: MessageDispatcher, name: str) -> None:
    dripped = DRIPS[name]

    def behave(conversation: Conversation) -> None:
        conversation.read()
        if dripped is None:
            conversation.wait_for_close()
        else:
            conversation.drip(dripped)

    with serving(behave) as server:
        begin = time.monotonic()
        step = "waiting" if dripped is None else "receiving"
        with pytest.raises(DeadlineError, match=f"{server.url} took longer than 0.3 s: given up while {step} "):
            dispatcher.send(dispatcher.route(server.url), EVENT, timeout=0.3)
        assert 0.29 < time.monotonic() - begin < 1.5
        wait_for(lambda: server.closed == 1, what="the connection is closed")


def test_the_deadline_holds_for_a_kept_connection_as_well(dispatcher: MessageDispatcher) -> None:
    def behave(conversation: Conversation) -> None:
        for _ in range(2):
            conversation.read()
            conversation.send(ACCEPTED)
        conversation.read()
        conversation.drip(b"HTTP/1.1 100 Continue\r\n\r\n")

    with serving(behave) as server:
        route = dispatcher.route(server.url)
        for _ in range(2):
            dispatcher.send(route, EVENT)
        begin = time.monotonic()
        with pytest.raises(DeadlineError):
            dispatcher.send(route, EVENT, timeout=0.3)
        assert 0.29 < time.monotonic() - begin < 1.5


@pytest.mark.parametrize("timeout", [0.0, -1.0])
def test_without_time_nothing_is_sent(dispatcher: MessageDispatcher, timeout: float) -> None:
    with serving(answering(ACCEPTED)) as server:
        route = dispatcher.route(server.url)
        for _ in range(2):
            with pytest.raises(DeadlineError):
                dispatcher.send(route, EVENT, timeout=timeout)
            dispatcher.send(route, EVENT)
    assert len(server.requests) == 2


def test_a_subscriber_that_does_not_read_is_cut_at_the_deadline(dispatcher: MessageDispatcher) -> None:
    def behave(conversation: Conversation) -> None:
        conversation.read_head()
        while not conversation.stopping.wait(0.02):
            conversation.sock.recv(1000)

    with serving(behave) as server:
        begin = time.monotonic()
        with pytest.raises(DeadlineError, match="while sending"):
            dispatcher.send(dispatcher.route(server.url), Message({}, b"x" * 50_000_000), timeout=0.4)
        assert 0.39 < time.monotonic() - begin < 1.5


def test_connecting_is_cut_at_the_deadline(dispatcher: MessageDispatcher) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener:
        port = listener.getsockname()[1]
        fillers = [socket.socket() for _ in range(3)]
        for filler in fillers:  # what does not fit into the backlog waits for ever, like a host that drops packets
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", port))
        begin = time.monotonic()
        with pytest.raises(DeadlineError, match="while connecting"):
            dispatcher.send(dispatcher.route(f"127.0.0.1:{port}"), EVENT, timeout=0.3)
        assert 0.29 < time.monotonic() - begin < 1.5
        for filler in fillers:
            filler.close()
