"""More than can be delivered: the rate stays, nothing accepted is lost, the rest is told to come back."""

from __future__ import annotations

import time

from tests.bench.hosts import HOST, drained, host, quiet
from tests.bench.latency import send, subscriber
from tests.bench.machine import nginx, rss, wrk
from tests.bench.report import Report

BODY = 256
PACE = 1_000


def run(rounds: int, seconds: float) -> list[Report]:
    return [_unpaced(rounds, seconds), _paced(seconds)]


def _unpaced(rounds: int, seconds: float) -> Report:
    report = Report(
        "Overload: wrk unpaced on the same cores",
        ["connections", "offered/s", "accepted/s", "503/s", "delivered/s", "RSS MB"],
    )
    best: dict[int, float] = {}
    with nginx() as sink, host("stub", 1, sink.url) as process:
        for _ in range(rounds):
            for connections in (16, 64, 256):
                before, began = quiet(sink.count), time.monotonic()
                load = wrk(process.events, HOST, seconds=seconds, connections=connections, body=BODY)
                arrived = drained(sink.count, before + load.accepted) - before
                assert arrived >= load.accepted, f"{load.accepted - arrived} of {load.accepted} lost"
                rate = arrived / (time.monotonic() - began)
                best[connections] = max(best.get(connections, 0.0), rate)
                offered = (load.accepted + load.refused) / load.seconds
                refused = load.refused / load.seconds
                report.row(
                    connections, offered, load.accepted / load.seconds, refused, rate, rss(process.worker_pids())
                )
    report.at_least(
        "delivered at the worst number of connections, of the best", min(best.values()) / max(best.values()), 0.7
    )
    return report


def _paced(seconds: float) -> Report:
    report = Report(
        f"Overload: a subscriber that does {PACE:,} a second",
        ["offered/s", "accepted", "503", "delivered/s while offered", "RSS MB"],
    )
    rates: dict[int, float] = {}
    with (
        subscriber(PACE) as sink,
        host("stub", 1, sink.url, "--lane-in-flight", "16", "--lane-events", "1000") as process,
    ):
        for times in (1, 2, 10):
            before = quiet(sink.count)
            began = time.monotonic()
            answers = send(process.events, HOST, PACE * times, seconds)
            rates[times] = (sink.count() - before) / (time.monotonic() - began)
            accepted = answers.get(202, 0)
            assert set(answers) <= {202, 503}, answers
            arrived = drained(sink.count, before + accepted) - before
            assert arrived == accepted, f"{accepted - arrived} of {accepted} lost"
            report.row(PACE * times, accepted, answers.get(503, 0), rates[times], rss(process.worker_pids()))
    best = max(rates.values())
    for times in (2, 10):
        report.at_least(f"delivered at {times} times the rate, of the best", rates[times] / best, 0.9)
    return report
