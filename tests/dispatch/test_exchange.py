"""One POST over a real connection: what arrives, what comes back, and every way in which it fails."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest

from bus_core.data_plane.dispatch import MessageDispatcher, connection, encode
from bus_core.model.errors import DestinationError, DispatchError, ResponseError
from bus_core.model.message import Message
from tests.dispatch.servers import (
    ACCEPTED,
    Conversation,
    answer,
    answering,
    answering_once,
    echo,
    serving,
)
from tests.support import wait_for

EVENT = Message({"ce-id": "1", "content-type": "text/plain"}, b"payload")
CAP = 100_000


@pytest.fixture
def dispatcher() -> Iterator[MessageDispatcher]:
    made = MessageDispatcher(timeout=5, max_reply_bytes=CAP)
    yield made
    made.close()


def test_the_request_is_exactly_what_it_should_be(dispatcher: MessageDispatcher) -> None:
    headers = {"ce-id": "größe", "content-type": "text/plain", "traceparent": "00-a-b-01", "knative-x": "1"}
    with serving(answering(ACCEPTED)) as server:
        route = dispatcher.route(f"{server.url}a/b?c=d%20e")
        reply = dispatcher.send(route, Message(headers | {"cookie": "no", "accept-encoding": "gzip"}, b"\0\r\n\xff"))
    (request,) = server.requests
    assert (reply.status, reply.body, dict(reply.headers)) == (202, b"", {"content-length": "0"})
    assert request.line == b"POST /a/b?c=d%20e HTTP/1.1"
    assert sorted(request.headers) == sorted(
        [*headers.items(), ("host", f"127.0.0.1:{server.port}"), ("content-length", "4")]
    )
    assert request.body == b"\0\r\n\xff"
    assert route.destination == f"{server.url}a/b?c=d%20e"


@pytest.mark.parametrize("size", [0, 1, connection.JOIN_LIMIT, connection.JOIN_LIMIT + 1, 3_000_000])
def test_payloads_of_any_size_arrive_whole(size: int) -> None:
    payload = bytes(index % 251 for index in range(1000)) * (size // 1000 + 1)
    dispatcher = MessageDispatcher(timeout=10, max_reply_bytes=4_000_000)
    with serving(echo) as server:
        for _ in range(2):
            reply = dispatcher.send(dispatcher.route(server.url), Message({}, payload[:size]))
            assert reply.body == payload[:size]
    assert server.connections == 1


def test_one_encoded_event_goes_to_many(dispatcher: MessageDispatcher) -> None:
    event = encode(Message({"ce-id": "7"}, b"x" * 200_000))
    with serving(answering(ACCEPTED)) as one, serving(answering(ACCEPTED)) as two:
        for server in (one, two):
            dispatcher.send(dispatcher.route(server.url), event)
    assert one.requests[0].body == two.requests[0].body == event.payload
    assert one.requests[0].header("ce-id") == two.requests[0].header("ce-id") == "7"


@pytest.mark.parametrize(
    ("data", "body"),
    [
        (answer(b"hello"), b"hello"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n", b"hello"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", b""),
        (b"HTTP/1.1 100 Continue\r\n\r\n" * 3 + ACCEPTED, b""),
    ],
    ids=["length", "chunked", "no content", "interim"],
)
def test_a_connection_is_kept_for_the_next(dispatcher: MessageDispatcher, data: bytes, body: bytes) -> None:
    with serving(answering(data)) as server:
        route = dispatcher.route(server.url)
        assert [dispatcher.send(route, EVENT).body for _ in range(4)] == [body] * 4
        # Another path of the same host shares the connection.
        dispatcher.send(dispatcher.route(server.url + "other"), EVENT)
        assert (server.connections, len(server.requests)) == (1, 5)


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 200 OK\r\n\r\nhello",
        b"HTTP/1.0 200 OK\r\ncontent-length: 5\r\n\r\nhello",
        answer(b"hello", connection="close"),
        answer(b"hello") + b"HTTP/1.1 500 stray answer\r\ncontent-length: 0\r\n\r\n",
    ],
    ids=["until close", "http/1.0", "connection: close", "a second answer"],
)
def test_a_connection_that_ends_is_not_used_again(dispatcher: MessageDispatcher, data: bytes) -> None:
    with serving(answering_once(data)) as server:
        for _ in range(3):
            assert dispatcher.send(dispatcher.route(server.url), EVENT).body == b"hello"
    assert server.connections == 3


def test_a_connection_closed_while_idle_is_replaced(dispatcher: MessageDispatcher) -> None:
    with serving(answering_once(ACCEPTED)) as server:
        for count in (1, 2, 3):
            dispatcher.send(dispatcher.route(server.url), EVENT)
            wait_for(lambda count=count: server.closed == count)  # type: ignore[misc]
    assert (server.connections, len(server.requests)) == (3, 3)


def test_a_stray_answer_on_an_idle_connection_answers_nothing(dispatcher: MessageDispatcher) -> None:
    strayed = threading.Event()

    def behave(conversation: Conversation) -> None:
        if conversation.read():
            conversation.send(ACCEPTED)
            conversation.send(b"HTTP/1.1 500 stray\r\ncontent-length: 0\r\n\r\n")
            strayed.set()
            conversation.wait_for_close()

    with serving(behave) as server:
        for _ in range(2):
            assert dispatcher.send(dispatcher.route(server.url), EVENT).status == 202
            assert strayed.wait(5)
            strayed.clear()
    assert server.connections == 2


def test_an_idle_connection_is_not_trusted_for_ever(
    dispatcher: MessageDispatcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(answering(ACCEPTED)) as server:
        dispatcher.send(dispatcher.route(server.url), EVENT)
        monkeypatch.setattr(connection, "IDLE_LIMIT", 0.0)
        dispatcher.send(dispatcher.route(server.url), EVENT)
        assert server.connections == 2


def test_a_reset_of_a_reused_connection_does_not_send_the_event_again(dispatcher: MessageDispatcher) -> None:
    def behave(conversation: Conversation) -> None:
        for data in (ACCEPTED, ACCEPTED, None):
            conversation.read()
            if data is None:
                conversation.reset()
            else:
                conversation.send(data)

    with serving(behave) as server:
        route = dispatcher.route(server.url)
        for _ in range(2):
            dispatcher.send(route, EVENT)
        with pytest.raises(DispatchError, match=f"{server.url} failed while waiting"):
            dispatcher.send(route, EVENT)
        assert (server.connections, len(server.requests)) == (1, 3)
        # The next one is not harmed.
        assert dispatcher.send(route, EVENT).status == 202


@pytest.mark.parametrize("start", [b"HTTP/1.1 2", b"HTTP/1.1 200 OK\r\ncontent-length: 50\r\n\r\nabc"])
@pytest.mark.parametrize("end", ["reset", "close"])
def test_an_answer_cut_short_is_an_error(dispatcher: MessageDispatcher, start: bytes, end: str) -> None:
    def behave(conversation: Conversation) -> None:
        conversation.read()
        conversation.send(start)
        if end == "reset":
            conversation.reset()

    with serving(behave) as server:
        with pytest.raises(DispatchError, match=f"^{server.url} ") as caught:
            dispatcher.send(dispatcher.route(server.url), EVENT)
        assert type(caught.value) is DispatchError
    assert len(server.requests) == 1


def test_a_close_without_an_answer(dispatcher: MessageDispatcher) -> None:
    with (
        serving(answering_once(b"")) as server,
        pytest.raises(DispatchError, match="closed the connection without an answer"),
    ):
        dispatcher.send(dispatcher.route(server.url), EVENT)


def test_what_is_not_http_is_an_error(dispatcher: MessageDispatcher) -> None:
    with (
        serving(answering_once(b"220 mail.example ESMTP\r\n")) as server,
        pytest.raises(DispatchError, match="not valid HTTP"),
    ):
        dispatcher.send(dispatcher.route(server.url), EVENT)


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_is_not_followed(dispatcher: MessageDispatcher, status: int) -> None:
    with (
        serving(answering(ACCEPTED)) as target,
        serving(answering(answer(b"there", f"{status} There", location=target.url))) as server,
    ):
        with pytest.raises(ResponseError) as caught:
            dispatcher.send(dispatcher.route(server.url), EVENT)
        assert (caught.value.status, caught.value.headers["location"]) == (status, target.url)
        assert (len(server.requests), target.connections) == (1, 0)


@pytest.mark.parametrize("status", [400, 404, 429, 500, 503])
def test_a_refusal_carries_what_was_answered(dispatcher: MessageDispatcher, status: int) -> None:
    with serving(answering(answer(b"why not", f"{status} No", Retry_After="7"))) as server:
        route = dispatcher.route(server.url)
        for _ in range(2):
            with pytest.raises(ResponseError, match=f"{server.url} answered {status}") as caught:
                dispatcher.send(route, EVENT)
            assert (caught.value.status, caught.value.body) == (status, b"why not")
            assert caught.value.headers["retry-after"] == "7"
        assert (server.connections, len(server.requests)) == (1, 2)


def test_an_answer_that_comes_before_the_whole_event(dispatcher: MessageDispatcher) -> None:
    def behave(conversation: Conversation) -> None:
        for _ in range(2):
            conversation.read()
            conversation.send(ACCEPTED)
        conversation.read_head()
        conversation.send(answer(b"too large", "413 Content Too Large"))

    with serving(behave) as server:
        route = dispatcher.route(server.url)
        for _ in range(2):
            dispatcher.send(route, EVENT)
        with pytest.raises(ResponseError) as caught:
            dispatcher.send(route, Message({}, b"x" * 30_000_000))
        assert (caught.value.status, caught.value.body) == (413, b"too large")
        # What was sent in part spoils the connection for the next event.
        assert dispatcher.send(route, EVENT).status == 202
        assert server.connections == 2


def test_nobody_listens(dispatcher: MessageDispatcher) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/"
        with pytest.raises(DispatchError, match=f"^{url} failed while connecting: Connection refused$"):
            dispatcher.send(dispatcher.route(url), EVENT)


def test_a_name_that_does_not_resolve(dispatcher: MessageDispatcher) -> None:
    # RFC 2606: no name below `invalid` ever resolves.
    with pytest.raises(DestinationError, match=r"the name orders\.invalid does not resolve"):
        dispatcher.send(dispatcher.route("orders.invalid"), EVENT)


def test_the_first_address_that_answers_is_used(dispatcher: MessageDispatcher, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as unused, serving(answering(ACCEPTED)) as server:
        unused.bind(("127.0.0.1", 0))
        addresses = [unused.getsockname(), ("127.0.0.1", server.port)]
        found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", address) for address in addresses]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
        assert dispatcher.send(dispatcher.route("two.example"), EVENT).status == 202
        assert server.requests[0].header("host") == "two.example"


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_names_below_localhost_are_this_machine(dispatcher: MessageDispatcher, address: str) -> None:
    with serving(answering(ACCEPTED), address=address) as server:
        for name in ("localhost", "orders.default.localhost"):
            reply = dispatcher.send(dispatcher.route(f"http://{name}:{server.port}/"), EVENT)
            assert reply.status == 202
            assert server.requests[-1].header("host") == f"{name}:{server.port}"


def test_an_ipv6_address_is_a_destination(dispatcher: MessageDispatcher) -> None:
    with serving(answering(ACCEPTED), address="::1") as server:
        dispatcher.send(dispatcher.route(f"http://[::1]:{server.port}/"), EVENT)
        assert server.requests[0].header("host") == f"[::1]:{server.port}"
