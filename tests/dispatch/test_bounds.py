"""Many threads at once, and memory that stays bounded whatever a subscriber answers."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import threading
import tracemalloc
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from bus_core.data_plane.dispatch import MessageDispatcher, encode
from bus_core.model.errors import DispatchError, ResponseError
from bus_core.model.message import Message
from tests.dispatch.servers import ACCEPTED, Conversation, answer, answering, echo, serving
from tests.support import wait_for

EVENT = Message({"ce-id": "1"}, b"payload")
MEGABYTE = 1 << 20
PIECE = b"x" * 65536


@contextlib.contextmanager
def little_memory(most: int = 10 * MEGABYTE) -> Iterator[None]:
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        yield
        assert tracemalloc.get_traced_memory()[1] - before < most
    finally:
        tracemalloc.stop()


class Flood:
    """Starts with `head`, then sends `piece` without end, and counts."""

    def __init__(self, head: bytes, piece: bytes) -> None:
        self.head = head
        self.piece = piece
        self.sent = 0

    def __call__(self, conversation: Conversation) -> None:
        conversation.read()
        conversation.send(self.head)
        while self.sent < 1 << 30:
            conversation.send(self.piece)
            self.sent += len(self.piece)


FLOODS = {
    "a gigabyte": (b"HTTP/1.1 200 OK\r\ncontent-length: 1073741824\r\n\r\n", PIECE),
    "until close": (b"HTTP/1.1 200 OK\r\n\r\n", PIECE),
    "chunks": (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", b"10000\r\n" + PIECE + b"\r\n"),
    "tiny chunks": (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", b"1\r\nx\r\n" * 10_000),
    "headers": (b"HTTP/1.1 200 OK\r\n", b"a: b\r\n" * 10_000),
    "one header": (b"HTTP/1.1 200 OK\r\na: ", PIECE),
    "trailers": (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n0\r\na: ", PIECE),
    "a chunk extension": (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1;", PIECE),
    "interim answers": (b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 1000),
}


@pytest.mark.parametrize("name", FLOODS)
def test_a_flood_is_not_read(name: str) -> None:
    flood = Flood(*FLOODS[name])
    dispatcher = MessageDispatcher(timeout=10)
    with serving(flood) as server:
        with little_memory(), pytest.raises(DispatchError, match=f"^{server.url} gave an? .*(larger|more) than"):
            dispatcher.send(dispatcher.route(server.url), EVENT)
        wait_for(lambda: server.closed == 1, what="the connection is closed")
    # Sockets hold a few megabytes of what nobody has read.
    assert flood.sent < 30 * MEGABYTE


def test_a_refusal_is_cut_and_the_rest_not_read() -> None:
    flood = Flood(b"HTTP/1.1 500 Oops\r\ncontent-length: 1073741824\r\n\r\n", PIECE)
    dispatcher = MessageDispatcher(timeout=10, max_reply_bytes=100_000)
    with serving(flood) as server:
        with little_memory(), pytest.raises(ResponseError) as caught:
            dispatcher.send(dispatcher.route(server.url), EVENT)
        assert caught.value.body == b"x" * 100_000
        wait_for(lambda: server.closed == 1, what="the connection is closed")


def test_a_gzip_bomb_stays_packed() -> None:
    bomb = gzip.compress(b"\0" * (100 * MEGABYTE), 1)
    dispatcher = MessageDispatcher(timeout=10)
    with serving(answering(answer(bomb, content_encoding="gzip"))) as server, little_memory():
        reply = dispatcher.send(dispatcher.route(server.url), EVENT)
        assert reply.body == bomb
        assert reply.headers["content-encoding"] == "gzip"


def test_a_large_payload_is_not_copied() -> None:
    event = encode(Message({"ce-id": "1"}, b"x" * (20 * MEGABYTE)))
    digests: list[str] = []

    def behave(conversation: Conversation) -> None:
        conversation.read_head()
        digest = hashlib.sha256()
        for piece in conversation.body(len(event.payload)):
            digest.update(piece)
        digests.append(digest.hexdigest())
        conversation.send(ACCEPTED)

    dispatcher = MessageDispatcher(timeout=10)
    with serving(behave) as server, little_memory(2 * MEGABYTE):
        dispatcher.send(dispatcher.route(server.url), event)
    assert digests == [hashlib.sha256(event.payload).hexdigest()]


def test_32_threads_get_their_own_answers() -> None:
    dispatcher = MessageDispatcher(timeout=20)
    with serving(echo) as server:
        route = dispatcher.route(server.url)

        def send(thread: int) -> None:
            for index in range(30):
                size = 70_000 if index % 10 == 0 else 10 + 37 * index
                payload = f"{thread}-{index}-".encode() * (size // 6 + 1)
                assert dispatcher.send(route, Message({"ce-id": f"{thread}-{index}"}, payload)).body == payload

        with ThreadPoolExecutor(32) as threads:
            for done in [threads.submit(send, number) for number in range(32)]:
                done.result()
    assert len({request.header("ce-id") for request in server.requests}) == len(server.requests) == 32 * 30
    assert server.connections <= 32


def test_idle_connections_are_kept_up_to_the_bound() -> None:
    together = threading.Barrier(6, timeout=10)

    def behave(conversation: Conversation) -> None:
        while conversation.read():
            together.wait()
            conversation.send(ACCEPTED)

    dispatcher = MessageDispatcher(timeout=10, max_connections=2)
    with serving(behave) as server:
        route = dispatcher.route(server.url)
        with ThreadPoolExecutor(6) as threads:
            for done in [threads.submit(dispatcher.send, route, EVENT) for _ in range(6)]:
                done.result()
        wait_for(lambda: server.closed == 4, what="all but two connections are closed")
        assert server.connections == 6
        dispatcher.close()
        wait_for(lambda: server.closed == 6, what="the others are closed with the dispatcher")
