"""A flood of events at a dead subscriber, beside a healthy one on another channel: memory and the other's rate."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import yaml

from tests.support import ROOT, BusProcess, Subscriber, bus, free_port, manifest, subscriber, wait_for

RATE = 200.0
BOUND_MB = 300
FULL = int(os.environ.get("BUS_FLOOD_EVENTS", "1000000"))

needs_proc = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from Linux's /proc")


class Pace:
    """Sends to `healthy` at a rate until left, on schedule whatever the answers; `rate` is what arrived per second."""

    def __init__(self, process: BusProcess, server: Subscriber) -> None:
        self._process = process
        self._server = server
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._send, daemon=True)
        self._statuses: set[int] = set()
        self._sent = 0

    def __enter__(self) -> Pace:
        self._server.requests.clear()
        self._began = time.monotonic()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        wait_for(lambda: len(self._server.requests) >= self._sent, 20, "all of the healthy one's arrive")
        self.rate = len(self._server.requests) / (self._server.requests[-1].at - self._began)
        assert self._statuses == {202}

    def _send(self) -> None:
        while not self._stop.wait(max(self._began + self._sent / RATE - time.monotonic(), 0)):
            self._statuses.add(self._process.send("healthy").status)
            self._sent += 1


def rss_mb(process: BusProcess, field: str) -> float:
    """Of the largest worker."""
    texts = [Path(f"/proc/{pid}/status").read_text() for pid in process.worker_pids()]
    return max(int(line.split()[1]) / 1024 for text in texts for line in text.splitlines() if line.startswith(field))


def run(tmp_path: Path, number: int) -> None:
    folder = tmp_path / "manifests"
    folder.mkdir()
    with subscriber() as server:
        dead = f"http://127.0.0.1:{free_port()}/"
        objects = [
            manifest("Bus", "demo"),
            manifest("Channel", "dead", bus="demo"),
            manifest("Channel", "healthy", bus="demo"),
            manifest("Subscription", "dead", channel="dead", subscriber=dead, delivery={"retry": 50}),
            manifest("Subscription", "healthy", channel="healthy", subscriber=server.url()),
        ]
        (folder / "all.yaml").write_text(yaml.safe_dump_all(objects))
        options = ("--driver", "stub", "--stall-after", "5", "--drain-timeout", "0")
        with bus(folder, tmp_path / "state", *options) as process:
            process.wait_served("dead", "healthy")
            before = rss_mb(process, "VmRSS")
            command = [sys.executable, "-m", "tests.host.flood", process.events, "dead", str(number)]
            with Pace(process, server) as alone:
                time.sleep(2)  # the length of the measurement, not a wait
            with Pace(process, server) as beside:
                result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=1500)
            statuses = {int(status): count for status, count in json.loads(result.stdout).items()}
            peak = rss_mb(process, "VmHWM")
            print(f"{number} offered, answered {statuses}; RSS before {before:.0f} MB, peak {peak:.0f} MB, ", end="")
            print(f"bound {BOUND_MB} MB; healthy {alone.rate:.0f}/s alone, {beside.rate:.0f}/s beside")
            assert sum(statuses.values()) == number
            assert set(statuses) <= {202, 503}
            assert peak < BOUND_MB
            assert beside.rate > alone.rate * 0.9

            def accounted() -> bool:
                dropped = process.metric("bus_deliveries_dropped_total", subscription="default/dead", reason="stalled")
                waiting = process.metric("bus_lane_depth", subscription="default/dead")
                return bool(dropped + waiting == statuses[202])

            wait_for(accounted, what="each accepted one is waiting, or counted")


@needs_proc
@pytest.mark.soak
def test_a_million_events_at_a_dead_subscriber(tmp_path: Path) -> None:
    run(tmp_path, FULL)
