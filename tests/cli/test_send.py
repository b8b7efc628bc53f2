"""`bus send`: what arrives, and what it says of the answers."""

from __future__ import annotations

import json
import time

from tests.cli.shell import run
from tests.support import BusProcess, Subscriber, free_port, wait_for
from tests.zygote import run_bus


def test_send_makes_a_valid_cloudevent(running: tuple[BusProcess, Subscriber]) -> None:
    process, sink = running
    to = f"http://{process.events}/"
    result = run(
        "send",
        "default/orders",
        "--to",
        to,
        "--data",
        "-",
        "--type",
        "a.b",
        "--header",
        "ce-subject=s",
        "--header",
        "X-Tenant=acme",
        stdin='{"a": 1}',
    )
    assert (result.returncode, result.stdout.strip()) == (0, "1 × 202")
    got = wait_for(lambda: [r for r in sink.requests if r.headers.get("ce-type") == "a.b"])[0]
    assert got.body == b'{"a": 1}'
    assert got.headers["content-type"] == "application/json"
    assert got.headers["ce-subject"] == "s"
    assert got.headers["x-tenant"] == "acme", "it goes to the bus, which was told to forward it"
    assert {"ce-id", "ce-source", "ce-specversion", "ce-time"} <= set(got.headers)


def test_send_many_at_a_rate_counts_the_answers(running: tuple[BusProcess, Subscriber]) -> None:
    process, _ = running
    began = time.monotonic()
    result = run("send", "orders", "--to", f"http://{process.events}/", "--count", "21", "--rate", "40", "-o", "json")
    assert json.loads(result.stdout)["answers"] == {"202": 21}
    assert time.monotonic() - began >= 0.5


def test_send_takes_the_host_of_a_channel_for_its_name(running: tuple[BusProcess, Subscriber]) -> None:
    process, _ = running
    result = run_bus("send", "orders.default", "--to", f"http://{process.events}/", "-o", "json")
    assert json.loads(result.stdout) == {"channel": "orders.default", "answers": {"202": 1}, "problem": ""}


def test_send_says_why_an_event_was_not_taken(running: tuple[BusProcess, Subscriber]) -> None:
    process, _ = running
    result = run("send", "nowhere", "--to", f"http://{process.events}/")
    assert result.returncode == 1
    assert "1 × 404" in result.stdout
    assert "there is no channel default/nowhere" in result.stderr
    result = run("send", "orders", "--to", f"http://127.0.0.1:{free_port()}/")
    assert result.returncode == 1
    assert "no answer" in result.stdout
    assert "Traceback" not in result.stderr
