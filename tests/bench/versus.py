"""`python -m tests.bench.versus CHECKOUT`: the CPU of an event in this checkout, as a ratio to that in another one.

Both take turns in one run, each with the Python of its own `.venv`. The ratios are medians of those within a round.
"""

from __future__ import annotations

import argparse
import contextlib
from pathlib import Path
from typing import Any

from tests.bench.fixed import fixed
from tests.bench.hosts import host
from tests.bench.machine import nginx
from tests.bench.report import Report, Spread, merge, ratio
from tests.bench.stages import cost, serving
from tests.support import BUS

CASES = {"server": "the server with an application of a few lines", "1": "one subscription", "10": "ten subscriptions"}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.versus", description=__doc__)
    parser.add_argument("checkout", type=Path, help="a folder with another version and its .venv")
    parser.add_argument("--rounds", type=int, default=5, help="how often they take turns [default: 5]")
    parser.add_argument("--seconds", type=float, default=3.0, help="of load in a round [default: 3]")
    options = parser.parse_args()
    print(compare(options.checkout.resolve(), options.rounds, options.seconds))


def compare(checkout: Path, rounds: int, seconds: float) -> Report:
    found = []
    with contextlib.ExitStack() as stack:
        sink = stack.enter_context(nginx())
        ways: dict[str, Any] = {"fixed": stack.enter_context(fixed())}
        for side, folder, program in (("here", "", BUS), ("there", str(checkout), checkout / ".venv/bin/bus")):
            ways[f"server {side}"] = stack.enter_context(serving("raw", folder))
            for count in (1, 10):
                way = stack.enter_context(host("stub", count, sink.url, program=program))
                ways[f"{count} {side}"] = way
        for number in range(rounds + 1):
            figures = {name: cost(way, sink, seconds) for name, way in ways.items()}
            if number:  # the first round warms up
                found.append(figures)
    by = merge(found)
    report = Report(f"CPU µs an event, here and in {checkout.name}", ["what", "here", "there", "ratio"])
    for case, what in CASES.items():
        here, there = by[f"{case} here"], by[f"{case} there"]
        report.row(what, Spread.of(here), Spread.of(there), ratio(here, there))
    for side in ("here", "there"):
        times = ratio(by[f"server {side}"], by["fixed"])
        report.notes.append(f"the server {side} takes {times:.2f} times an asyncio server with fixed answers")
    return report


if __name__ == "__main__":
    main()
