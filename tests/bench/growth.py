"""What a delivery costs with a thousand channels, beside one."""

from __future__ import annotations

import contextlib

from tests.bench.hosts import HOST, drained, host, quiet
from tests.bench.machine import cpu, nginx, rss, wrk
from tests.bench.report import Report, Spread, merge, ratio

BODY = 256
CONNECTIONS = 16
CHANNELS = 1_000


def run(rounds: int, seconds: float) -> list[Report]:
    found = []
    with contextlib.ExitStack() as stack:
        sink = stack.enter_context(nginx())
        hosts = {count: stack.enter_context(host("stub", 1, sink.url, channels=count)) for count in (1, CHANNELS)}
        for number in range(rounds + 1):
            figures = {}
            for count, process in hosts.items():
                before, used = quiet(sink.count), cpu(process.worker_pids())
                load = wrk(process.events, HOST, seconds=seconds, connections=CONNECTIONS, body=BODY)
                arrived = drained(sink.count, before + load.accepted) - before
                figures[f"{count} cpu"] = (cpu(process.worker_pids()) - used) / arrived * 1e6
                figures[f"{count} rss"] = rss(process.worker_pids())
            if number:
                found.append(figures)
    by = merge(found)
    report = Report("Growth", ["channels with a subscription each", "CPU µs a delivery", "RSS MB"])
    for count in (1, CHANNELS):
        report.row(count, Spread.of(by[f"{count} cpu"]), Spread.of(by[f"{count} rss"]))
    report.at_most(f"CPU at {CHANNELS:,} channels, of one", ratio(by[f"{CHANNELS} cpu"], by["1 cpu"]), 1.25)
    return [report]
