"""A secret in a destination's query stays out of logs, errors, dead letters, metrics and reports."""

from __future__ import annotations

import logging
import threading
import urllib.parse

import pytest

from bus_core.data_plane.delivery import Delivery, Target
from bus_core.data_plane.dispatch import MessageDispatcher
from bus_core.model.errors import DispatchError, PermanentError, ReplyError, UnavailableError
from bus_core.model.message import DispatchDefaults, Message
from bus_core.model.references import SubscriptionReference
from bus_core.model.resources import DeliverySpec
from tests.delivery.rig import FAST, ORDERS, rig
from tests.support import Answer, Request, free_port, subscriber, wait_for

TOKEN = "token=hunter2&sig=hunter2"
EVENT = Message({"ce-id": "1"}, b"x")


@pytest.mark.parametrize("failure", ["refused", "status", "final", "timeout"])
def test_of_a_subscriber(failure: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    reports: list[str] = []
    dispatcher = MessageDispatcher()
    delivery = Delivery(dispatcher, report=lambda _, reason, message: reports.append(message))
    status = {"status": 500, "final": 400}.get(failure, 202)
    late = threading.Event()

    def behave(_: Request) -> Answer:
        if failure == "timeout":
            late.wait(2)
        return Answer(status)

    with subscriber(behave) as server, subscriber() as sink:
        server_url = f"http://127.0.0.1:{free_port()}/" if failure == "refused" else server.url()
        spec = {**FAST, "retry": 1, "timeout": 0.2 if failure == "timeout" else 5.0}
        lost = Target(ORDERS, SubscriptionReference("lost"), f"{server_url}hook?{TOKEN}", "", DeliverySpec(**spec))
        spec["dead_letter_sink"] = sink.url() + f"?{TOKEN}"
        kept = Target(ORDERS, SubscriptionReference("kept"), f"{server_url}hook?{TOKEN}", "", DeliverySpec(**spec))
        for target in (lost, kept):
            delivery.open(target)
        future = delivery.submit(lost.subscription, EVENT)
        delivery.publish(ORDERS, EVENT)
        wait_for(lambda: sink.requests and future.done() and not any(delivery.depths().values()), 10)
        if failure != "final":
            with pytest.raises(UnavailableError, match=r"hook\?token=\*\*\*&sig=\*\*\*") as caught:
                future.result(0)
            assert "hunter2" not in str(caught.value)
            wait_for(lambda: any(reports), 5, "the subscriber is reported")
        said = sink.requests[0].headers
        assert urllib.parse.unquote(said["ce-knativeerrordest"]) == f"{server_url}hook?token=***&sig=***"
        assert "hunter2" not in "".join(said.values())
        names = "".join(delivery.depths())
        late.set()
        delivery.drain(0)
    dispatcher.close()
    assert "events dropped" in caplog.text
    assert "hunter2" not in "".join([caplog.text, *map(str, (r.__dict__ for r in caplog.records)), *reports, names])


def test_sinks_that_differ_in_their_secrets_keep_lanes_of_their_own() -> None:
    nobody = f"http://127.0.0.1:{free_port()}/"
    with rig() as it:
        for name in ("a", "b"):
            it.open(name, nobody, retry=0, dead_letter_sink=f"{nobody}?token={name}", backoff_delay=30.0)
        it.publish(b"x")
        wanted = {f"sink {nobody}?token=*** of default", f"sink {nobody}?token=*** of default (2)"}
        wait_for(lambda: {name for name, depth in it.delivery.depths().items() if depth} == wanted)


def test_of_a_reply_to() -> None:
    dispatcher = MessageDispatcher(timeout=5)
    nobody = f"http://127.0.0.1:{free_port()}/?{TOKEN}"
    with subscriber(lambda _: Answer(200, b"reply")) as server, pytest.raises(ReplyError) as caught:
        dispatcher.dispatch_message(EVENT, server.url(), DispatchDefaults(reply_to=nobody))
    assert "hunter2" not in str(caught.value)
    assert "token=***" in str(caught.value)
    assert caught.value.reply_to == nobody, "a caller can send the reply again"
    dispatcher.close()


def test_of_a_route() -> None:
    dispatcher = MessageDispatcher()
    route = dispatcher.route(f"https://api.example/hook?{TOKEN}")
    assert "hunter2" not in repr(route)
    dispatcher.close()
    with pytest.raises(DispatchError, match=r"https://api\.example/hook\?token=\*\*\*&sig=\*\*\* gets nothing more"):
        dispatcher.send(route, EVENT)


@pytest.mark.parametrize("wrong", ["http://h:none/?", "http://user:hunter2@h/?", "ftp://h/?"])
def test_of_a_subscription_that_is_refused(wrong: str) -> None:
    """The text becomes the condition of the subscription, and an Event."""
    dispatcher = MessageDispatcher()
    delivery = Delivery(dispatcher)
    with pytest.raises(PermanentError) as caught:
        delivery.open(Target(ORDERS, SubscriptionReference("one"), wrong + TOKEN, "", DeliverySpec(**FAST)))
    assert "hunter2" not in str(caught.value)
    dispatcher.close()
