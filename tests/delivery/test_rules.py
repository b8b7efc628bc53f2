"""Which answer leads to which end: every status, every way not to answer, and what is tried again when."""

from __future__ import annotations

import datetime as dt
import email.utils
import socket
import threading
import time
from collections.abc import Callable
from itertools import count

import pytest

from tests.delivery.rig import rig
from tests.dispatch.servers import Conversation, answer, serving
from tests.support import Answer, Request, free_port, subscriber, wait_for

RETRIED = [404, 408, 409, 429, 500, 501, 502, 503, 504, 507, 599]
REFUSED = [400, 401, 402, 403, 405, 406, 410, 411, 412, 413, 414, 415, 422, 451, 499]
NOT_FOLLOWED = [300, 301, 302, 303, 304, 307, 308]


def failing(times: int, status: int, **headers: str) -> Callable[[Request], Answer]:
    """Answers `status` so many times, then 204."""
    numbers = count()

    def behave(_: Request) -> Answer:
        return Answer(status, b"", headers) if next(numbers) < times else Answer()

    return behave


def test_a_subscriber_that_fails_gets_the_event_again_and_no_other_does() -> None:
    with subscriber(failing(3, 500)) as bad, subscriber() as good, rig() as it:
        it.open("bad", bad.url())
        it.open("good", good.url())
        it.publish(b"an event")
        it.settle()
        assert bad.bodies() == [b"an event"] * 4
        assert good.bodies() == [b"an event"]


@pytest.mark.parametrize("status", RETRIED)
def test_tried_again(status: int) -> None:
    with subscriber(failing(1, status)) as server, rig() as it:
        it.open("one", server.url())
        it.publish(b"x")
        it.settle()
        assert len(server.requests) == 2


@pytest.mark.parametrize("status", REFUSED + NOT_FOLLOWED)
def test_refused_for_good(status: int) -> None:
    with subscriber() as elsewhere:
        with subscriber(failing(99, status, location=elsewhere.url())) as server, rig() as it:
            it.open("one", server.url())
            it.publish(b"x")
            it.settle()
            assert len(server.requests) == 1
            it.close()
            assert it.dropped("status") == 1
        assert not elsewhere.requests, "a redirect is never followed"


def test_an_interim_answer_is_no_answer() -> None:
    def behave(conversation: Conversation) -> None:
        while conversation.read():
            conversation.send(b"HTTP/1.1 103 Early Hints\r\n\r\n" + answer())

    with serving(behave) as server, rig() as it:
        it.open("one", server.url)
        it.publish(b"x")
        it.settle()
        assert len(server.requests) == 1


def test_the_tries_end() -> None:
    with subscriber(failing(99, 500)) as server, rig() as it:
        it.open("one", server.url(), retry=2)
        it.publish(b"x")
        it.settle()
        assert len(server.requests) == 3
        it.close()
        assert it.dropped("unavailable") == 1


def test_no_retry_at_all() -> None:
    with subscriber(failing(99, 500)) as server, rig() as it:
        it.open("one", server.url(), retry=0)
        it.publish(b"x")
        it.settle()
        assert len(server.requests) == 1


def test_nobody_listens_yet() -> None:
    port = free_port()
    with rig() as it:
        it.open("one", f"http://127.0.0.1:{port}/", retry=50, backoff_delay=0.02)
        it.publish(b"x")
        got = threading.Event()
        listener = socket.create_server(("127.0.0.1", port))

        def accept() -> None:
            sock = listener.accept()[0]
            sock.recv(65536)
            sock.sendall(answer())
            got.set()
            sock.close()

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        assert got.wait(5)
        it.settle()
        listener.close()
        thread.join()


def _reset_in_mid_reply(conversation: Conversation) -> None:
    if conversation.read():
        conversation.send(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf")
        conversation.reset()


def _close_in_mid_reply(conversation: Conversation) -> None:
    if conversation.read():
        conversation.send(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf")


def _nonsense(conversation: Conversation) -> None:
    if conversation.read():
        conversation.send(b"220 mail.example ESMTP\r\n")


@pytest.mark.parametrize("behave", [_reset_in_mid_reply, _close_in_mid_reply, _nonsense])
def test_half_an_answer_is_none(behave: Callable[[Conversation], None]) -> None:
    with serving(behave) as server, rig() as it:
        it.open("one", server.url, retry=2)
        it.publish(b"x")
        it.settle()
        assert len(server.requests) == 3
        it.close()
        assert it.dropped("unavailable") == 1


def _hang(conversation: Conversation) -> None:
    conversation.read()
    conversation.wait_for_close()


def _drip_body(conversation: Conversation) -> None:
    conversation.read()
    conversation.send(b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n")
    conversation.drip(b"x")


def _drip_head(conversation: Conversation) -> None:
    conversation.read()
    conversation.send(b"HTTP/1.1 200 OK\r\n")
    conversation.drip(b"x-a: b\r\n")


@pytest.mark.parametrize("behave", [_hang, _drip_body, _drip_head])
def test_an_exchange_ends_at_its_deadline(behave: Callable[[Conversation], None]) -> None:
    with serving(behave) as server, rig() as it:
        it.open("one", server.url, retry=1, timeout=0.2)
        began = time.monotonic()
        it.publish(b"x")
        it.settle()
        assert 0.4 <= time.monotonic() - began < 3
        assert len(server.requests) == 2


def in_seconds(seconds: int) -> str:
    return str(seconds)


def as_date(seconds: int) -> str:
    # A date has whole seconds: one more, so that rounding down does not make it less.
    return email.utils.format_datetime(dt.datetime.now(dt.UTC) + dt.timedelta(seconds=seconds + 1), usegmt=True)


@pytest.mark.parametrize("form", [in_seconds, as_date])
@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_is_honoured(status: int, form: Callable[[int], str]) -> None:
    with subscriber() as server, rig() as it:
        server.behave = failing(1, status, **{"retry-after": form(1)})
        it.open("one", server.url())
        it.publish(b"x")
        it.settle()
        first, second = server.requests
        assert 0.9 <= second.at - first.at < 4


def test_retry_after_is_honoured_only_so_far() -> None:
    with subscriber(failing(1, 503, **{"retry-after": "3600"})) as server, rig() as it:
        it.open("one", server.url(), retry_after_max=0.3)
        it.publish(b"x")
        it.settle()
        first, second = server.requests
        assert 0.28 <= second.at - first.at < 3


@pytest.mark.parametrize(("status", "value"), [(500, "3600"), (404, "3600"), (503, "soon"), (503, "-5"), (429, "")])
def test_no_other_retry_after_counts(status: int, value: str) -> None:
    with subscriber(failing(1, status, **{"retry-after": value})) as server, rig() as it:
        it.open("one", server.url())
        it.publish(b"x")
        it.settle(5)
        assert len(server.requests) == 2


def test_a_waiting_event_holds_up_no_other_without_a_key() -> None:
    def behave(request: Request) -> Answer:
        return Answer(503, b"", {"retry-after": "60"}) if request.body == b"first" else Answer()

    with subscriber(behave) as server, rig() as it:
        it.open("one", server.url())
        it.publish(b"first", *[b"%d" % number for number in range(20)])
        wait_for(lambda: len(server.requests) == 21)
        assert it.delivery.depths() == {"default/one": 1}


def test_a_failed_reply_leg_repeats_the_reply_and_never_the_event() -> None:
    with subscriber(lambda r: Answer(200, b"reply to " + r.body, {"ce-id": "r"})) as server:
        with subscriber(failing(3, 500)) as target, rig() as it:
            it.open("one", server.url(), reply_to=target.url())
            it.publish(b"x")
            it.settle()
            assert server.bodies() == [b"x"]
            assert target.bodies() == [b"reply to x"] * 4
            assert {request.headers["knative-hops"] for request in target.requests} == {"1"}


def test_the_reply_leg_has_tries_of_its_own() -> None:
    numbers = count()

    def behave(_: Request) -> Answer:
        return Answer(500) if next(numbers) < 2 else Answer(200, b"reply")

    with subscriber(behave) as server, subscriber(failing(2, 500)) as target, rig() as it:
        it.open("one", server.url(), reply_to=target.url(), retry=2)
        it.publish(b"x")
        it.settle()
        assert len(server.requests) == 3
        assert len(target.requests) == 3
        it.close()
        assert not it.drops
