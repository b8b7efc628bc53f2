"""MessageDispatcher: destination, reply leg, hops, local channels, and its end."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from bus_core.data_plane.dispatch import MessageDispatcher, Reply
from bus_core.model.errors import DestinationError, DispatchError, InvalidMessageError, ReplyError, ResponseError
from bus_core.model.headers import ForwardedHeaders
from bus_core.model.message import DispatchDefaults, Message
from tests.dispatch.servers import ACCEPTED, Conversation, Server, answer, answering, serving
from tests.support import wait_for

EVENT = Message({"ce-id": "1", "content-type": "text/plain", "knative-hops": "3"}, b"event")


@pytest.fixture
def dispatcher() -> Iterator[MessageDispatcher]:
    made = MessageDispatcher(timeout=5)
    yield made
    made.close()


@pytest.fixture
def sink() -> Iterator[Server]:
    with serving(answering(ACCEPTED)) as server:
        yield server


def test_an_event_goes_to_its_destination(dispatcher: MessageDispatcher, sink: Server) -> None:
    dispatcher.dispatch_message(EVENT, sink.url)
    (request,) = sink.requests
    assert request.body == b"event"
    assert sorted(request.names) == ["ce-id", "content-length", "content-type", "host", "knative-hops"]


def test_a_reply_goes_on_with_its_own_forwarded_headers(dispatcher: MessageDispatcher, sink: Server) -> None:
    reply = answer(
        b"reply", CE_Id="2", ce_type="größe", Content_Type="text/html", Set_Cookie="c=d", Knative_Hops="99", Server="x"
    )
    with serving(answering(reply)) as subscriber:
        dispatcher.dispatch_message(EVENT, subscriber.url, DispatchDefaults(reply_to=sink.url))
    (request,) = sink.requests
    assert request.body == b"reply"
    assert sorted(request.headers) == [
        ("ce-id", "2"),
        ("ce-type", "größe"),
        ("content-length", "5"),
        ("content-type", "text/html"),
        ("host", f"127.0.0.1:{sink.port}"),
        ("knative-hops", "4"),
    ]


def test_an_empty_reply_goes_nowhere(dispatcher: MessageDispatcher, sink: Server) -> None:
    with serving(answering(answer(b"", ce_id="2"))) as subscriber:
        dispatcher.dispatch_message(EVENT, subscriber.url, DispatchDefaults(reply_to=sink.url))
    assert sink.connections == 0


def test_a_reply_with_nowhere_to_go_is_dropped(dispatcher: MessageDispatcher) -> None:
    with serving(answering(answer(b"reply"))) as subscriber:
        dispatcher.dispatch_message(EVENT, subscriber.url)
    assert len(subscriber.requests) == 1


def test_without_a_destination_the_event_itself_goes_to_reply_to(dispatcher: MessageDispatcher, sink: Server) -> None:
    dispatcher.dispatch_message(EVENT, "", DispatchDefaults(reply_to=sink.url))
    (request,) = sink.requests
    assert (request.body, request.header("knative-hops")) == (b"event", "3")
    dispatcher.dispatch_message(EVENT)
    assert len(sink.requests) == 1


def test_a_refusal_is_no_reply(dispatcher: MessageDispatcher, sink: Server) -> None:
    with serving(answering(answer(b"no", "500 Oops"))) as subscriber, pytest.raises(ResponseError):
        dispatcher.dispatch_message(EVENT, subscriber.url, DispatchDefaults(reply_to=sink.url))
    assert sink.connections == 0


@pytest.mark.parametrize(
    ("reply_to", "cause"),
    [("{sink}", ResponseError), ("orders.invalid", DestinationError), ("not a name", DestinationError)],
)
def test_a_failing_reply_leg_carries_the_reply(
    dispatcher: MessageDispatcher, reply_to: str, cause: type[DispatchError]
) -> None:
    with (
        serving(answering(answer(b"", "503 Busy"))) as sink,
        serving(answering(answer(b"reply", ce_id="2"))) as subscriber,
    ):
        reply_to = reply_to.format(sink=sink.url)
        with pytest.raises(ReplyError, match="reply could not be forwarded") as caught:
            dispatcher.dispatch_message(EVENT, subscriber.url, DispatchDefaults(reply_to=reply_to))
        assert caught.value.reply == Message({"ce-id": "2", "knative-hops": "4"}, b"reply")
        assert caught.value.reply_to == reply_to
        assert type(caught.value.cause) is cause
        assert len(subscriber.requests) == 1


def test_what_a_reply_becomes(dispatcher: MessageDispatcher) -> None:
    headers = {"ce-id": "2", "cookie": "c", "knative-hops": "0"}
    assert dispatcher.reply_to_message(Reply(202, headers, b""), EVENT) is None
    assert dispatcher.reply_to_message(Reply(200, headers, b"r"), Message({}, b"")) == Message(
        {"ce-id": "2", "knative-hops": "1"}, b"r"
    )


def test_the_rule_for_headers_can_be_extended(sink: Server) -> None:
    dispatcher = MessageDispatcher(forwarded=ForwardedHeaders(["x-tenant"]))
    dispatcher.dispatch_message(Message({"x-tenant": "t", "x-other": "o"}, b""), sink.url)
    assert sorted(sink.requests[0].names) == ["content-length", "host", "x-tenant"]
    reply = dispatcher.reply_to_message(Reply(200, {"x-tenant": "u", "x-other": "o"}, b"r"), Message({}, b""))
    assert reply == Message({"x-tenant": "u", "knative-hops": "1"}, b"r")


@pytest.mark.parametrize("value", ["a\r\nx: y", "a\nb", "a\0b"])
def test_a_header_that_would_break_the_request_is_never_sent(
    dispatcher: MessageDispatcher, sink: Server, value: str
) -> None:
    with pytest.raises(InvalidMessageError, match="ce-id"):
        dispatcher.dispatch_message(Message({"ce-id": value}, b""), sink.url)
    assert sink.connections == 0


def test_a_single_label_is_completed_with_the_namespace(dispatcher: MessageDispatcher) -> None:
    assert dispatcher.route("orders", "shop").destination == "http://orders.shop.svc.cluster.local/"
    with pytest.raises(DestinationError, match=r"orders\.shop\.svc\.cluster\.local"):
        dispatcher.dispatch_message(EVENT, "orders", DispatchDefaults(namespace="shop"))


def test_a_channel_of_this_bus_is_found_locally(sink: Server) -> None:
    channels = {("orders", "shop")}
    asked: list[tuple[str, str]] = []

    def local(name: str, namespace: str) -> tuple[str, str] | None:
        asked.append((name, namespace))
        return (sink.url, f"{name}.{namespace}") if (name, namespace) in channels else None

    dispatcher = MessageDispatcher(timeout=5, local=local)
    route = dispatcher.route("orders", "shop")
    assert route.destination == "http://orders.shop/"
    dispatcher.send(route, EVENT)
    assert (sink.requests[0].line, sink.requests[0].header("host")) == (b"POST / HTTP/1.1", "orders.shop")
    assert dispatcher.route("bills", "shop").destination == "http://bills.shop.svc.cluster.local/"
    # Asked anew each time, and only for names that could be channels of a namespace.
    channels.clear()
    assert dispatcher.route("orders", "shop").destination == "http://orders.shop.svc.cluster.local/"
    assert asked == [("orders", "shop"), ("bills", "shop"), ("orders", "shop")]
    for other in ("orders.shop", "orders:80", "http://orders/", "localhost"):
        dispatcher.route(other, "shop")
    assert len(asked) == 3


def test_a_reply_reaches_a_local_channel(sink: Server) -> None:
    dispatcher = MessageDispatcher(timeout=5, local=lambda name, namespace: (sink.url, f"{name}.{namespace}"))
    with serving(answering(answer(b"reply"))) as subscriber:
        dispatcher.dispatch_message(EVENT, subscriber.url, DispatchDefaults(namespace="shop", reply_to="orders"))
    assert (sink.requests[0].header("host"), sink.requests[0].body) == ("orders.shop", b"reply")


def test_after_close_nothing_is_sent(dispatcher: MessageDispatcher, sink: Server) -> None:
    route = dispatcher.route(sink.url)
    dispatcher.send(route, EVENT)
    dispatcher.close()
    dispatcher.close()
    wait_for(lambda: sink.closed == 1, what="the idle connection is closed")
    for later in (route, dispatcher.route(sink.url), dispatcher.route("http://127.0.0.1:9/")):
        with pytest.raises(DispatchError, match="closed"):
            dispatcher.send(later, EVENT)
    assert len(sink.requests) == 1


def test_close_lets_an_exchange_end() -> None:
    asked, go_on = threading.Event(), threading.Event()

    def behave(conversation: Conversation) -> None:
        conversation.read()
        asked.set()
        go_on.wait(5)
        conversation.send(ACCEPTED)
        conversation.wait_for_close()

    dispatcher = MessageDispatcher(timeout=5)
    with serving(behave) as server, ThreadPoolExecutor(1) as thread:
        sending = thread.submit(dispatcher.send, dispatcher.route(server.url), EVENT)
        assert asked.wait(5)
        dispatcher.close()
        go_on.set()
        assert sending.result(5).status == 202
        wait_for(lambda: server.closed == 1, what="its connection is closed")
