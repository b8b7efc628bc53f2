"""Delivered per second and CPU per delivery: ours beside the plain stack and the bare exchange, in one run."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import Protocol

from tests.bench.bare import bare
from tests.bench.floor import floor
from tests.bench.hosts import HOST, drained, host, quiet
from tests.bench.machine import Nginx, cpu, nginx, rss, wrk
from tests.bench.plain import plain
from tests.bench.report import Report, Spread, merge, ratio

BODY = 256
CONNECTIONS = 16


class Contestant(Protocol):
    events: str

    def worker_pids(self) -> list[int]: ...


def run(rounds: int, seconds: float) -> list[Report]:
    with contextlib.ExitStack() as stack:
        sink = stack.enter_context(nginx())
        ours = {count: stack.enter_context(host("stub", count, sink.url)) for count in (1, 10, 100)}
        two = stack.enter_context(host("stub", 1, sink.url, "--workers", "2"))
        theirs = {count: stack.enter_context(plain([f"http://127.0.0.1:{sink.port}/"] * count)) for count in (1, 10)}
        ways: dict[str, Callable[[], dict[str, float]]] = {}
        for count, process in ours.items():
            ways[f"ours, {count} subscriptions"] = _way(process, sink, count, seconds)
        ways["ours, 1 subscription, 2 workers"] = _way(two, sink, 1, seconds)
        ways["ours, 1 subscription, new connections"] = _way(ours[1], sink, 1, seconds, close=True)
        ways["ours, 1 subscription, 16 KiB"] = _way(ours[1], sink, 1, seconds, body=16 << 10)
        ways["ours, 1 subscription, 1 MiB"] = _way(ours[1], sink, 1, seconds, body=(1 << 20) - 1024)
        for count, other in theirs.items():
            ways[f"plain Python stack, {count} subscriptions"] = _way(other, sink, count, seconds)
        floors = {count: stack.enter_context(floor(sink.port, count)) for count in (1, 10)}
        for count, system_calls in floors.items():
            ways[f"system calls alone, {count} subscriptions"] = _way(system_calls, sink, count, seconds)
        found = []
        for number in range(rounds + 1):
            figures: dict[str, float] = {"bare cpu": bare(sink.port, BODY, 1)}
            for name, way in ways.items():
                figures |= {f"{name} {what}": value for what, value in way().items()}
            if number:  # the first round warms up
                found.append(figures)
    return [_report(merge(found), list(ways))]


def _way(
    process: Contestant, sink: Nginx, subscriptions: int, seconds: float, *, body: int = BODY, close: bool = False
) -> Callable[[], dict[str, float]]:
    def once() -> dict[str, float]:
        pids = process.worker_pids()
        before, used, began = quiet(sink.count), cpu(pids), time.monotonic()
        load = wrk(process.events, HOST, seconds=seconds, connections=CONNECTIONS, body=body, close=close)
        wanted = load.accepted * subscriptions
        arrived = drained(sink.count, before + wanted) - before
        taken = time.monotonic() - began
        # wrk cuts the exchanges under way at its end: some of them were accepted, and it never heard.
        assert wanted <= arrived <= wanted + CONNECTIONS * subscriptions, f"{arrived} arrived of {wanted} accepted"
        return {
            "accepted": load.accepted / load.seconds,
            "delivered": arrived / taken,
            "cpu": (cpu(pids) - used) / arrived * 1e6,
            "refused": load.refused / load.seconds,
            "rss": rss(pids),
        }

    return once


def _report(by: dict[str, list[float]], names: list[str]) -> Report:
    report = Report(
        f"Throughput, wrk with {CONNECTIONS} connections as fast as they go, {BODY} bytes unless said",
        ["way", "accepted/s", "refused/s", "delivered/s", "CPU µs a delivery", "RSS MB"],
    )
    for name in names:
        report.row(
            name, *(Spread.of(by[f"{name} {what}"]) for what in ("accepted", "refused", "delivered", "cpu", "rss"))
        )
    report.row("bare exchange", "", "", "", Spread.of(by["bare cpu"]), "")
    one, ten, many = (f"ours, {count} subscriptions" for count in (1, 10, 100))
    theirs = "plain Python stack, 1 subscriptions"

    def compare(above: str, below: str, what: str) -> float:
        return ratio(by[f"{above} {what}"], by[f"{below} {what}"])

    report.at_least("1 subscription: delivered, of the plain stack", compare(one, theirs, "delivered"), 4)
    report.at_most("1 subscription: CPU, of the plain stack's", compare(one, theirs, "cpu"), 0.25)
    floors = {count: f"system calls alone, {count} subscriptions" for count in (1, 10)}
    report.at_most("1 subscription: CPU, of the system calls' alone", compare(one, floors[1], "cpu"), 3.6)
    report.at_least("10 subscriptions: delivered, of one", compare(ten, one, "delivered"), 1.6)
    report.at_most("10 subscriptions: CPU, of the system calls' alone", compare(ten, floors[10], "cpu"), 1.9)
    report.at_most("100 subscriptions: CPU, of ten's", compare(many, ten, "cpu"), 1.1)
    report.at_most("16 KiB: CPU, of 256 B", compare("ours, 1 subscription, 16 KiB", one, "cpu"), 1.5)
    report.at_least("2 workers: delivered, of one", compare("ours, 1 subscription, 2 workers", one, "delivered"), 0.9)
    return report
