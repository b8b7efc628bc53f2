"""`python -m tests.bench [CASE…]`: runs the cases, prints their tables, writes JSON; exit 1 when a goal is missed."""

from __future__ import annotations

import argparse
import importlib
import sys
from pathlib import Path

from tests.bench.report import MissingTool

CASES = ("throughput", "stages", "latency", "overload", "growth", "folder", "kafka", "cluster")
RESULTS = Path(__file__).resolve().parents[2] / ".cache" / "bench"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("case", nargs="*", help="which; default: all")
    parser.add_argument("--rounds", type=int, default=5, help="how often the contestants take turns [default: 5]")
    parser.add_argument("--seconds", type=float, default=3.0, help="of load in a round [default: 3]")
    options = parser.parse_args()
    unknown = sorted(set(options.case) - set(CASES))
    if unknown:
        parser.error(f"no case {', '.join(unknown)}; there are {', '.join(CASES)}")
    missed = 0
    for name in options.case or CASES:
        case = importlib.import_module(f"tests.bench.{name}")
        try:
            reports = case.run(options.rounds, options.seconds)
        except MissingTool as missing:
            print(f"\n{name}: skipped: {missing}")
            continue
        for number, report in enumerate(reports):
            print(report, flush=True)
            report.save(RESULTS / f"{name}-{number}.json")
            missed += sum(not goal.met for goal in report.goals)
    print(f"\n{missed} goals missed; figures in {RESULTS.relative_to(Path.cwd())}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
