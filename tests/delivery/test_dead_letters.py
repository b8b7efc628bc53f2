"""Dead letters: what they say, where they go, and what happens when nobody takes them."""

from __future__ import annotations

import datetime as dt
import urllib.parse
from pathlib import Path
from typing import Any

import pytest
import yaml

from bus_core.data_plane.delivery import LaneLimits, backoff
from bus_core.model.errors import PermanentError
from bus_core.model.message import Message
from bus_core.model.references import ChannelReference
from tests.delivery.rig import ORDERS, rig
from tests.support import Answer, Request, Subscriber, bus, free_port, manifest, subscriber, wait_for


def letters(sink: Subscriber, number: int) -> list[Request]:
    return wait_for(lambda: sink.requests[:] if len(sink.requests) >= number else [], what=f"{number} dead letters")


def test_a_dead_letter_is_the_event_and_says_what_became_of_it() -> None:
    before = dt.datetime.now(dt.UTC) - dt.timedelta(seconds=1)
    with subscriber(lambda _: Answer(500, b"no room left")) as bad, subscriber() as sink, rig() as it:
        it.open("one", bad.url(), retry=2, dead_letter_sink=sink.url("sink"))
        it.publish(b"an event", headers={"content-type": "text/plain", "ce-type": "order", "traceparent": "00-1-2-01"})
        it.settle()
        letter = letters(sink, 1)[0]
    assert letter.body == b"an event"
    assert letter.headers["content-type"] == "text/plain"
    assert letter.headers["ce-type"] == "order"
    assert letter.headers["traceparent"] == "00-1-2-01"
    errors = {
        name.removeprefix("ce-knativeerror"): value
        for name, value in letter.headers.items()
        if name.startswith("ce-knativeerror")
    }
    first, last = (dt.datetime.fromisoformat(errors.pop(name)) for name in ("first", "last"))
    assert before <= first <= last <= dt.datetime.now(dt.UTC)
    assert {name: urllib.parse.unquote(value) for name, value in errors.items()} == {
        "dest": bad.url(),
        "code": "500",
        "data": "no room left",
        "reason": "status",
        "attempts": "3",
    }


@pytest.mark.parametrize("status", [400, 302, 410])
def test_a_final_refusal_is_dead_lettered_at_once(status: int) -> None:
    with subscriber(lambda _: Answer(status)) as bad, subscriber() as sink, rig() as it:
        it.open("one", bad.url(), dead_letter_sink=sink.url())
        it.publish(b"x")
        letter = letters(sink, 1)[0]
        assert letter.headers["ce-knativeerrorcode"] == str(status)
        assert letter.headers["ce-knativeerrorattempts"] == "1"
        assert len(bad.requests) == 1


@pytest.mark.parametrize(
    "body",
    [
        b"a\r\nce-injected: yes\r\n\r\nPOST / HTTP/1.1",
        bytes(range(256)) * 40,
        "größer \u20ac \U0001f4a5".encode(),
        b"\x00",
        b'100 % " \\',
    ],
)
def test_the_piece_of_the_answer_is_bounded_and_safe(body: bytes) -> None:
    with subscriber(lambda _: Answer(500, body)) as bad, subscriber() as sink, rig() as it:
        it.open("one", bad.url(), retry=0, dead_letter_sink=sink.url())
        it.publish(b"x")
        headers = letters(sink, 1)[0].headers
    data = headers["ce-knativeerrordata"]
    assert urllib.parse.unquote_to_bytes(data) == body[:1024]
    assert data.isascii()
    assert data.isprintable()
    assert not {'"', "\\"} & set(data), "neither has a place in a CloudEvents header value unescaped"
    assert "ce-injected" not in headers


def test_no_answer_at_all_has_no_code() -> None:
    with subscriber() as sink, rig() as it:
        it.open("one", f"http://127.0.0.1:{free_port()}/", retry=1, dead_letter_sink=sink.url())
        it.publish(b"x")
        headers = letters(sink, 1)[0].headers
    assert headers["ce-knativeerrorreason"] == "network"
    assert headers["ce-knativeerrorattempts"] == "2"
    assert "refused" in headers["ce-knativeerrordata"]
    assert "ce-knativeerrorcode" not in headers


def test_a_reply_that_nobody_takes_is_the_dead_letter() -> None:
    with subscriber(lambda _: Answer(200, b"a reply", {"ce-id": "r"})) as server:
        with subscriber(lambda _: Answer(500)) as target, subscriber() as sink, rig() as it:
            it.open("one", server.url(), reply_to=target.url(), retry=1, dead_letter_sink=sink.url())
            it.publish(b"an event")
            letter = letters(sink, 1)[0]
            assert letter.body == b"a reply"
            assert urllib.parse.unquote(letter.headers["ce-knativeerrordest"]) == target.url()
            assert server.bodies() == [b"an event"]


def test_a_loop_of_replies_ends() -> None:
    with subscriber(lambda r: Answer(200, r.body)) as echo, subscriber() as sink, rig() as it:
        it.open("one", echo.url(), reply_to=echo.url("again"), retry=1, dead_letter_sink=sink.url())
        it.publish(b"x", headers={"knative-hops": "32"})
        letter = letters(sink, 1)[0]
        assert letter.headers["ce-knativeerrorreason"] == "loop"
        assert len(echo.requests) == 1, "the reply went nowhere"
        it.publish(b"x", headers={"knative-hops": "31"})
        wait_for(lambda: len(echo.requests) == 3)
        it.settle()
        assert len(sink.requests) == 1


def test_dead_letters_that_are_sent_in_a_circle_end() -> None:
    """Two channels whose subscriptions name each other's channel as their sink, and none of whose subscribers works."""
    with rig() as it:
        first, second = ChannelReference("first"), ChannelReference("second")

        def hand_on(request: Request) -> Answer:
            name = request.host.split(".")[0]
            message = Message({k: v for k, v in request.headers.items() if k.startswith(("ce-", "knative-"))}, b"x")
            it.delivery.publish(second if name == "second" else first, message)
            return Answer()

        with subscriber(hand_on) as channels, subscriber(lambda _: Answer(400)) as bad:
            it.open("one", bad.url(), channel=first, dead_letter_sink=channels.url("second"))
            it.open("two", bad.url(), channel=second, dead_letter_sink=channels.url("first"))
            it.publish(b"x", channel=first)
            wait_for(lambda: len(bad.requests) == 34)
            it.settle()
            assert len(channels.requests) == 33
        it.close()
        assert it.dropped("loop") == 1


def test_dead_letters_that_are_shed_in_a_circle_end() -> None:
    """The same, where both lanes are full and stalled: no letter is ever tried by a subscriber."""
    first, second = ChannelReference("first"), ChannelReference("second")
    with rig(LaneLimits(events=4, stall_after=0.0)) as it, subscriber(lambda _: Answer(500)) as bad:

        def hand_on(request: Request) -> Answer:
            message = Message({k: v for k, v in request.headers.items() if k.startswith(("ce-", "knative-"))}, b"x")
            it.delivery.publish(second if request.host.startswith("second") else first, message)
            return Answer()

        with subscriber(hand_on) as channels:
            slow: dict[str, Any] = {"retry": 5, "backoff_delay": 60.0}
            it.open("one", bad.url(), channel=first, dead_letter_sink=channels.url("second"), **slow)
            it.open("two", bad.url(), channel=second, dead_letter_sink=channels.url("first"), **slow)
            it.publish(*[b"full"] * 4, channel=first)
            it.publish(*[b"full"] * 4, channel=second)
            it.publish(b"x", channel=first)
            wait_for(lambda: len(channels.requests) == 33)
            wait_for(lambda: not any(depth for name, depth in it.delivery.depths().items() if name.startswith("sink")))
            assert len(channels.requests) == 33
        it.close()
        assert it.dropped("loop") == 1


@pytest.mark.parametrize("value", ["Wed, 21 Oct 2015 07:28:00 +99999999999999999999", "\x80"])
def test_whatever_a_subscriber_says_the_thread_goes_on(value: str) -> None:
    numbers = iter(range(9))
    with (
        rig() as it,
        subscriber(lambda _: Answer(503 if next(numbers) == 0 else 204, b"", {"retry-after": value})) as s,
    ):
        it.open("one", s.url())
        it.publish(b"x")
        it.settle()
        assert len(s.requests) == 2


def test_a_fault_in_the_judgement_is_no_end(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> float:
        raise RuntimeError("a fault of ours")

    with subscriber(lambda _: Answer(500)) as bad, rig() as it:
        monkeypatch.setattr(backoff, "delay", fails)
        monkeypatch.setattr(backoff, "MAX_BACKOFF", 0.01)
        it.open("one", bad.url(), retry=2)
        it.publish(b"x")
        it.settle()
        assert len(bad.requests) == 3
        it.close()
        assert it.dropped("unavailable") == 1


@pytest.mark.parametrize("sink", ["http://orders.default.localhost:8080/", "http://orders.default.svc.cluster.local/"])
def test_a_channel_is_no_sink_for_itself(sink: str) -> None:
    with rig() as it, pytest.raises(PermanentError, match="the channel default/orders itself"):
        it.open("one", "http://127.0.0.1:1/", dead_letter_sink=sink)


def test_a_sink_that_is_down_gets_everything_when_it_is_back() -> None:
    up = False
    with subscriber(lambda _: Answer(500)) as bad, rig() as it:
        with subscriber(lambda _: Answer() if up else Answer(503)) as sink:
            it.open("one", bad.url(), retry=0, dead_letter_sink=sink.url())
            it.publish(*[b"%d" % number for number in range(200)])
            wait_for(lambda: it.delivery.depths().get("default/one") == 0, what="all are dead letters")
            wait_for(lambda: len(sink.requests) > 3)
            sink.requests.clear()
            up = True
            it.settle(20)
            assert sorted(sink.bodies(), key=int) == [b"%d" % number for number in range(200)]
        it.close()
        assert not it.drops


def test_a_sink_that_stays_down_is_bounded() -> None:
    with subscriber(lambda _: Answer(400)) as bad, rig(LaneLimits(events=50)) as it:
        it.open("one", bad.url(), dead_letter_sink=f"http://127.0.0.1:{free_port()}/")
        for number in range(200):
            wait_for(lambda: it.delivery.depths()["default/one"] < 50)
            it.publish(b"%d" % number)
        wait_for(lambda: it.delivery.depths()["default/one"] == 0)
        sink = next(depth for name, depth in it.delivery.depths().items() if name.startswith("sink"))
        assert sink == 50
        it.close()
        assert it.dropped("sink_full") == 150
        assert it.dropped("shutdown") == 50


def test_subscriptions_that_name_the_same_sink_share_one_lane() -> None:
    with subscriber(lambda _: Answer(400)) as bad, rig() as it:
        port = free_port()
        for name in ("one", "two"):
            it.open(name, bad.url(), dead_letter_sink=f"http://127.0.0.1:{port}/")
        it.publish(b"x")
        wait_for(lambda: [depth for name, depth in it.delivery.depths().items() if name.startswith("sink")] == [2])


def test_the_subscriptions_sink_comes_before_the_channels(tmp_path: Path) -> None:
    """And a sink that stays down shows in the metrics: with a real bus and its manifests."""
    with subscriber(lambda _: Answer(400)) as bad, subscriber() as sink:

        def delivery(**spec: Any) -> dict[str, Any]:
            return {"delivery": {"retry": 0, **spec}}

        folder = tmp_path / "manifests"
        folder.mkdir()
        objects = [
            manifest("Bus", "demo", driver="stub"),
            manifest("Channel", "orders", bus="demo", **delivery(deadLetterSink=sink.url("of-channel"))),
            manifest("Subscription", "plain", channel="orders", subscriber=bad.url("plain")),
            manifest(
                "Subscription",
                "own",
                channel="orders",
                subscriber=bad.url("own"),
                **delivery(deadLetterSink=sink.url("of-subscription")),
            ),
            manifest("Channel", "lost", bus="demo", **delivery(deadLetterSink=f"http://127.0.0.1:{free_port()}/")),
            manifest("Subscription", "third", channel="lost", subscriber=bad.url("third")),
        ]
        (folder / "all.yaml").write_text(yaml.safe_dump_all(objects))
        with bus(folder, tmp_path / "state", "--lane-events", "5", "--drain-timeout", "0") as running:
            running.wait_served("orders", "lost")
            assert running.send("orders", b"x").status == 202
            got = letters(sink, 2)
            by_host = {request.host.split(".")[0]: request for request in got}
            assert set(by_host) == {"of-channel", "of-subscription"}
            for host, name in (("of-channel", "plain"), ("of-subscription", "own")):
                assert urllib.parse.unquote(by_host[host].headers["ce-knativeerrordest"]) == bad.url(name)
            for _ in range(20):
                wait_for(lambda: running.send("lost", b"x").status == 202)
            wait_for(
                lambda: (
                    running.metric("bus_deliveries_dropped_total", subscription="default/third", reason="sink_full")
                    == 15
                )
            )
            assert running.metric("bus_deliveries_dead_lettered_total", subscription="default/own") == 1
            assert running.says("sink_full", "default/third")


def test_dead_letters_of_a_channel_go_nowhere_else() -> None:
    with subscriber(lambda r: Answer(400 if r.host.startswith("bad") else 204)) as server, subscriber() as sink:
        with rig() as it:
            it.open("bad", server.url("bad"), dead_letter_sink=sink.url())
            it.open("good", server.url("good"), dead_letter_sink=sink.url())
            it.publish(b"x", channel=ORDERS)
            it.settle()
            assert len(sink.requests) == 1
            assert server.bodies("good") == [b"x"]
