"""Counters and gauges: silent until they are enabled, then shared by the processes of a run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.support import ROOT


def run(program: str, *arguments: str) -> dict[str, object]:
    """Run a program in a process of its own, since telemetry is enabled once for each; what it prints as JSON."""
    environment = {name: value for name, value in os.environ.items() if name != "PROMETHEUS_MULTIPROC_DIR"}
    found = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=environment,
        check=False,
    )
    assert found.returncode == 0, found.stderr
    result: dict[str, object] = json.loads(found.stdout)
    return result


def test_nothing_is_measured_before_it_is_enabled() -> None:
    program = """
import json, sys
from bus_core import telemetry
counter = telemetry.Counter("bus_test", "a test", ["name"])
gauge = telemetry.Gauge("bus_test_level", "a test", ["name"])
counter.inc("a")
gauge.set(7, "a")
gauge.forget("a")
before = "prometheus_client" in sys.modules
telemetry.enable()
telemetry.enable()
counter.inc("a", by=3)
text = telemetry.exposition()[0].decode()
print(json.dumps({"before": before, "text": text}))
"""
    result = run(program)
    assert result["before"] is False, "a library that is used without metrics does not import the client"
    assert 'bus_test_total{name="a"} 3.0' in str(result["text"]).splitlines()
    assert 'bus_test_level{name="a"}' not in str(result["text"])


def test_counters_and_gauges_of_one_process() -> None:
    program = """
import json
from bus_core import telemetry
telemetry.enable()
counter = telemetry.Counter("bus_test", "a test")
gauge = telemetry.Gauge("bus_test_level", "a test", ["name"])
bare = telemetry.Gauge("bus_test_bare", "a test")
counter.inc()
counter.inc(by=2)
bare.set(1.5)
gauge.set(7, "kept")
gauge.set(8, "gone")
gauge.forget("gone")
text, kind = telemetry.exposition()
print(json.dumps({"text": text.decode(), "kind": kind}))
"""
    result = run(program)
    lines = str(result["text"]).splitlines()
    assert "bus_test_total 3.0" in lines, "a metric that is made after `enable` counts too"
    assert "bus_test_bare 1.5" in lines
    assert 'bus_test_level{name="kept"} 7.0' in lines
    assert not [line for line in lines if "gone" in line]
    assert str(result["kind"]).startswith("text/plain")


def test_workers_share_their_values_and_a_dead_one_takes_its_gauges_along(tmp_path: Path) -> None:
    program = """
import json, os, sys
from pathlib import Path
from bus_core import telemetry
counter = telemetry.Counter("bus_test", "a test")
gauge = telemetry.Gauge("bus_test_level", "a test", ["name"])
telemetry.enable(Path(sys.argv[1]))
counter.inc()
gauge.set(1, "all")
child = os.fork()
if not child:
    counter.inc(by=10)
    gauge.set(10, "all")
    gauge.set(5, "gone")
    gauge.forget("gone")
    os._exit(0)
os.waitpid(child, 0)
both = telemetry.exposition()[0].decode()
telemetry.worker_died(child)
one = telemetry.exposition()[0].decode()
print(json.dumps({"both": both, "one": one}))
"""
    result = run(program, str(tmp_path / "metrics"))
    both, one = str(result["both"]).splitlines(), str(result["one"]).splitlines()
    assert "bus_test_total 11.0" in both
    assert 'bus_test_level{name="all"} 11.0' in both
    assert 'bus_test_level{name="gone"} 0.0' in both, "a shared series cannot be removed, so it is zero"
    assert "bus_test_total 11.0" in one, "what a dead worker counted stays"
    assert 'bus_test_level{name="all"} 1.0' in one
