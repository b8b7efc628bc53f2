"""Latency at half the saturating rate: through the bus, and from the same sender straight to the same subscriber."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator

from tests.bench.hosts import HOST, host
from tests.bench.machine import cpu, wrk
from tests.bench.report import Report, Spread, merge, ratio
from tests.support import wait_for

BODY = 256
CONNECTIONS = 16


class Subscriber:
    """The process that tells the time."""

    def __init__(self, pace: float = 0.0) -> None:
        command = [sys.executable, "-m", "tests.bench.openloop", "serve", str(pace)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline())
        self.got: list[float] = []

    def url(self, name: str = "s") -> str:
        return f"http://{name}.localhost:{self.port}/"

    def latencies(self, count: int) -> list[float]:
        """Of the events since the last call, once so many have come."""
        got: list[float] = []
        wait_for(lambda: (got.extend(self._ask()), len(got) >= count)[1], 60, f"{count} events arrive")  # type: ignore[func-returns-value]
        return sorted(got)

    def count(self) -> int:
        self.got += self._ask()
        return len(self.got)

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()

    def _ask(self) -> list[float]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        found: list[float] = json.loads(self._process.stdout.readline())
        return found


@contextlib.contextmanager
def subscriber(pace: float = 0.0) -> Iterator[Subscriber]:
    made = Subscriber(pace)
    try:
        yield made
    finally:
        made.stop()


def send(address: str, name: str, rate: float, seconds: float, body: int = BODY) -> dict[int, int]:
    """What the sender was answered, by status."""
    command = [sys.executable, "-m", "tests.bench.openloop", "send", address, name]
    command += [str(rate), str(seconds), str(CONNECTIONS), str(body)]
    result = subprocess.run(command, capture_output=True, check=True, timeout=seconds + 60)
    return {int(status): count for status, count in json.loads(result.stdout)["answers"].items()}


def run(rounds: int, seconds: float) -> list[Report]:
    found = []
    with subscriber() as sink, host("stub", 1, sink.url) as process:
        best = wrk(process.events, HOST, seconds=seconds, connections=CONNECTIONS, body=BODY)
        sink.latencies(best.accepted)
        rate = best.accepted / best.seconds / 2
        for number in range(rounds + 1):
            figures = {}
            for name, address in (("straight", f"127.0.0.1:{sink.port}"), ("bus", process.events)):
                used = cpu(process.worker_pids())
                answers = send(address, HOST, rate, seconds)
                count = answers.get(202, 0) + answers.get(204, 0)
                assert set(answers) <= {202, 204}, answers
                latencies = sink.latencies(count)
                for part in (50, 99, 99.9):
                    figures[f"{name} p{part:g}"] = latencies[int(len(latencies) * part / 100)] * 1e3
                figures[f"{name} cpu"] = (cpu(process.worker_pids()) - used) / count * 1e6
            if number:
                found.append(figures)
    by = merge(found)
    title = f"Latency at half the saturating rate ({rate:,.0f}/s), from the moment an event was due to its arrival"
    report = Report(title, ["way", "p50 ms", "p99 ms", "p99.9 ms", "CPU µs of the bus"])
    for name in ("straight", "bus"):
        parts = (Spread.of(by[f"{name} {what}"]) for what in ("p50", "p99", "p99.9", "cpu"))
        report.row({"straight": "straight to the subscriber", "bus": "through the bus"}[name], *parts)
    report.at_most("p99 through the bus, of straight", ratio(by["bus p99"], by["straight p99"]), 3)
    return [report]
