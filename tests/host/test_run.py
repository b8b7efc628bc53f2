"""`bus run` as its users meet it: a real process, real HTTP, a folder of manifests."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.support import Answer, BusProcess, Request, Subscriber, bus, manifest, raw, request, subscriber, wait_for


@pytest.fixture(scope="module")
def sink() -> Iterator[Subscriber]:
    def behave(got: Request) -> Answer:
        if got.host.startswith("billing"):
            headers = {"content-type": "text/plain", "ce-id": "reply", "x-private": "no", "knative-hops": "99"}
            return Answer(200, b"answer to " + got.body, headers)
        return Answer()

    with subscriber(behave) as server:
        yield server


@pytest.fixture(scope="module")
def running(sink: Subscriber, tmp_path_factory: pytest.TempPathFactory) -> Iterator[BusProcess]:
    folder = tmp_path_factory.mktemp("manifests")
    objects = [
        manifest("Bus", "demo"),
        manifest("Channel", "orders", bus="demo"),
        manifest("Channel", "receipts", bus="demo"),
        manifest("Subscription", "shipping", channel="orders", subscriber=sink.url("shipping")),
        manifest("Subscription", "billing", channel="orders", subscriber=sink.url("billing"), replyTo="receipts"),
        manifest("Subscription", "mailbox", channel="receipts", subscriber=sink.url("mailbox")),
    ]
    (folder / "all.yaml").write_text(yaml.safe_dump_all(objects))
    state = tmp_path_factory.mktemp("state")
    with bus(folder, state, "--driver", "stub", "--max-body", "100000") as process:
        process.wait_served("orders", "receipts")
        yield process


def test_every_subscription_gets_the_event_as_it_was(running: BusProcess, sink: Subscriber) -> None:
    body = bytes(range(256)) * 3
    sent = {
        "content-type": "application/octet-stream",
        "ce-id": "1",
        "ce-type": "a\u00e9",
        "x-request-id": "r",
        "x-b3-traceid": "b",
        "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    }
    lines = [f"{name}: {value}" for name, value in sent.items()]
    lines += ["x-secret: 1", "accept: */*", "cookie: a=b", "ce-id: second"]
    head = "\r\n".join(
        ["POST / HTTP/1.1", "Host: Orders.Default.localhost:8080", *lines, f"content-length: {len(body)}"]
    )
    answer = raw(running.events, head.encode() + b"\r\n\r\n" + body)
    assert answer.startswith(b"HTTP/1.1 202")

    def arrived() -> list[Request]:
        return [got for got in sink.requests if got.body == body]

    wait_for(lambda: len(arrived()) == 2, what="both subscriptions of orders")
    assert {got.host.split(".")[0] for got in arrived()} == {"shipping", "billing"}
    for got in arrived():
        headers = dict(got.headers)
        headers["ce-type"] = headers["ce-type"].encode("latin-1").decode()  # http.server reads headers as latin-1
        assert headers.pop("host") in (f"shipping.localhost:{sink.port}", f"billing.localhost:{sink.port}")
        assert headers.pop("content-length") == str(len(body))
        assert headers == sent


def test_a_reply_becomes_an_event_of_the_channel_that_reply_to_names(running: BusProcess, sink: Subscriber) -> None:
    assert running.send("orders", b"reply please", ce_id="q").status == 202
    got = wait_for(lambda: [r for r in sink.requests if r.body == b"answer to reply please"], what="the reply")[0]
    assert got.host == f"mailbox.localhost:{sink.port}"
    headers = dict(got.headers)
    del headers["host"], headers["content-length"]
    # Its own forwarded headers, and the one header that the host adds, whatever the subscriber says of it.
    assert headers == {"content-type": "text/plain", "ce-id": "reply", "knative-hops": "1"}


def test_reply_to_may_be_the_localhost_url_of_a_channel(sink: Subscriber, tmp_path: Path) -> None:
    """A chain of two channels by URL; the port is the bus's own, known once it is chosen."""
    folder = tmp_path / "manifests"
    folder.mkdir()
    process = BusProcess(folder, tmp_path / "state", "--driver", "stub")
    url = f"http://second.default.localhost:{process.events.rpartition(':')[2]}/"
    objects = [
        manifest("Channel", "first", bus="demo"),
        manifest("Channel", "second", bus="demo"),
        manifest("Subscription", "billing", channel="first", subscriber=sink.url("billing"), replyTo=url),
        manifest("Subscription", "end", channel="second", subscriber=sink.url("end")),
    ]
    (folder / "a.yaml").write_text(yaml.safe_dump_all(objects))
    try:
        process.wait_ready().wait_served("first", "second")
        assert process.send("first", b"chain").status == 202
        got = wait_for(lambda: [r for r in sink.requests if r.host.startswith("end.")], what="the end of the chain")[0]
        assert got.body == b"answer to chain"
        assert got.headers["knative-hops"] == "1"
    finally:
        process.kill()


STRUCTURED = json.dumps({"specversion": "1.0", "id": "1", "source": "/s", "type": "t", "data": {"a": [1, 2.50, "é"]}})


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("application/cloudevents+json; charset=utf-8", STRUCTURED.encode()),
        ("application/cloudevents-batch+json", f"[{STRUCTURED}, {STRUCTURED}]".encode()),
        ("application/json", b'{"not": "quite json'),
        ("text/plain", b""),
    ],
)
def test_bodies_pass_through_untouched(running: BusProcess, sink: Subscriber, content_type: str, body: bytes) -> None:
    assert running.send("receipts", body, content_type=content_type).status == 202
    wait_for(lambda: any(r.body == body and r.headers.get("content-type") == content_type for r in sink.requests))


@pytest.mark.parametrize(
    ("method", "path", "host", "status", "says"),
    [
        ("POST", "/", "nothere.default", 404, "there is no channel default/nothere"),
        ("POST", "/other", "orders.default", 404, "on / only"),
        ("GET", "/", "orders.default", 405, "POST"),
        ("DELETE", "/", "orders.default", 405, "POST"),
        ("OPTIONS", "/", "orders.default", 405, "POST"),
        ("FOO", "/", "orders.default", 405, "POST"),
        ("POST", "/", "orders", 400, "NAME.NAMESPACE"),
        ("POST", "/", "", 400, "Host"),
        ("POST", "/", "..", 400, "NAME.NAMESPACE"),
        ("POST", "/", "a..b", 400, "NAME.NAMESPACE"),
        ("POST", "/", f"{'a' * 300}.default", 400, "at most 253"),
        ("POST", "/", "or ders.default", 400, ""),
    ],
)
def test_what_cannot_be_taken_is_answered_in_words(
    running: BusProcess, method: str, path: str, host: str, status: int, says: str
) -> None:
    answer = request(running.events, method, path, host=host)
    assert answer.status == status
    assert says in answer.text
    assert answer.text.strip()
    assert answer.headers.get("allow") == ("POST" if status == 405 else None)
    assert "Traceback" not in answer.text
    if status == 405:
        assert answer.headers["allow"] == "POST"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        (b"Host: orders.default\r\nce-id: \xff\xfe", b"400"),
        (b"Host: orders.default\r\nce-id: a\x00b", b"400"),
        (b"Host: orders.default\r\nce-id: a\rb", b"400"),
        (b"Host: orders.default\r\nce-id: a\r\n b", b"400"),
        (b"Host: \xff.default", b"400"),
        (b"ce-id: no host at all", b"400"),
        (b"Host: a.default\r\nHost: b.default", b"400"),
        (b"Host: orders.default\r\nContent-Length: 2", b"400"),
        (b"Host: orders.default\r\nTransfer-Encoding: chunked", b"400"),
    ],
)
def test_malformed_heads_are_answered_400(running: BusProcess, headers: bytes, status: bytes) -> None:
    answer = raw(running.events, b"POST / HTTP/1.1\r\n" + headers + b"\r\nContent-Length: 1\r\n\r\nx")
    assert answer.split(b" ", 2)[1] == status, answer
    assert b"Traceback" not in answer
    assert answer.partition(b"\r\n\r\n")[2].strip()


def test_a_query_that_is_no_text_does_no_harm(running: BusProcess) -> None:
    head = b"POST /?\xff\xfe HTTP/1.1\r\nHost: orders.default\r\nContent-Length: 1\r\n\r\nx"
    assert raw(running.events, head).split(b" ", 2)[1] in (b"202", b"400")


def test_a_body_too_large_by_its_length_is_refused_before_it_is_read(running: BusProcess) -> None:
    head = b"POST / HTTP/1.1\r\nHost: orders.default\r\nContent-Length: 100001\r\n\r\n"
    assert raw(running.events, head).startswith(b"HTTP/1.1 413")  # not one byte of the body was sent


def test_a_chunked_body_too_large_is_refused_while_it_is_read(running: BusProcess) -> None:
    head = b"POST / HTTP/1.1\r\nHost: orders.default\r\nTransfer-Encoding: chunked\r\n\r\n"
    chunks = (b"4000\r\n" + b"x" * 0x4000 + b"\r\n") * 8
    assert raw(running.events, head + chunks).startswith(b"HTTP/1.1 413")


@pytest.mark.parametrize(
    ("framing", "part"),
    [(b"Content-Length: 20", b"cut short by length"), (b"Transfer-Encoding: chunked", b"f\r\ncut short chunk\r\n")],
)
def test_a_body_cut_short_reaches_nobody(running: BusProcess, sink: Subscriber, framing: bytes, part: bytes) -> None:
    before = running.metric("bus_events_refused_total", reason="truncated")
    host, _, port = running.events.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=5) as sock:
        sock.sendall(b"POST / HTTP/1.1\r\nHost: orders.default\r\n" + framing + b"\r\n\r\n" + part)
    wait_for(lambda: running.metric("bus_events_refused_total", reason="truncated") > before, what="the refusal")
    # What is accepted later arrives; what was cut short would have arrived before it.
    assert running.send("orders", b"after " + framing).status == 202
    wait_for(lambda: sink.bodies().count(b"after " + framing) == 2)
    assert not [body for body in sink.bodies() if b"cut short" in body]


def test_health_and_metrics_are_on_the_admin_port_alone(running: BusProcess) -> None:
    assert request(running.admin, "GET", "/livez", body=None).text == "ok\n"
    assert request(running.admin, "GET", "/readyz", body=None).status == 200
    assert request(running.admin, "GET", "/elsewhere", body=None).status == 404
    # A forged Host does not lead from one port to the other.
    assert request(running.events, "GET", "/metrics", host=running.admin, body=None).status == 404
    assert request(running.admin, "POST", "/", host="orders.default").status == 404
    assert request(running.events, host="orders.default", body=b"counted").status == 202
    wait_for(lambda: running.metric("bus_events_accepted_total", channel="default/orders") > 0)
    wait_for(lambda: running.metric("bus_deliveries_total", subscription="default/shipping") > 0)
