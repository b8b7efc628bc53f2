"""What a folder of 10,000 channels costs: the first start, a restart, the worker's memory, and one edit."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import yaml

from tests.bench.machine import cpu, rss
from tests.bench.report import Report
from tests.support import BusProcess, Subscriber, manifest, subscriber, wait_for

CHANNELS = 10_000
IDLE = 5.0
"""Seconds over which the CPU of an idle bus is measured."""


def run(rounds: int, seconds: float) -> list[Report]:
    """One round, however many are asked for: what is measured takes seconds."""
    report = Report(
        "Folder", ["start", "readyz 200 after s", "master RSS MB", "worker RSS MB", "worker CPU s", "idle CPU ms/s"]
    )
    with tempfile.TemporaryDirectory() as name, subscriber() as sink:
        folder, state = Path(name) / "manifests", Path(name) / "state"
        _write(folder, sink)
        first, first_memory, _ = _start(report, "first", folder, state)
        again, again_memory, edit = _start(report, "again", folder, state, sink)
    report.notes.append(f"{CHANNELS:,} files, each with a channel and its subscription; one worker, driver stub")
    report.at_most("First start, seconds", first, 20)
    report.at_most("Restart, seconds", again, 6)
    report.at_most("Worker's resident memory, MB", max(first_memory, again_memory), 250)
    report.at_most("A new subscription gets an event, seconds after its file was written", edit, 2)
    return [report]


def _write(folder: Path, sink: Subscriber) -> None:
    folder.mkdir()
    (folder / "bus.yaml").write_text(yaml.safe_dump(manifest("Bus", "demo")))
    channel = yaml.safe_dump(manifest("Channel", "NAME", bus="demo"))
    subscription = manifest("Subscription", "NAME", channel="NAME", subscriber=sink.url("all"), delivery={"retry": 3})
    text = f"{channel}---\n{yaml.safe_dump(subscription)}"
    for number in range(CHANNELS):
        (folder / f"c{number}.yaml").write_text(text.replace("NAME", f"c{number}"))


def _start(
    report: Report, label: str, folder: Path, state: Path, sink: Subscriber | None = None
) -> tuple[float, float, float]:
    """Seconds to readyz, the worker's megabytes, and seconds until an edit was served (0 without a sink)."""
    began = time.monotonic()
    process = BusProcess(folder, state, "--driver", "stub")
    try:
        while not process.is_ready():  # asked seldom, because the answers come from the worker that is measured
            assert process.process.poll() is None, process.log
            assert time.monotonic() - began < 300, "it gets ready"
            time.sleep(0.1)
        ready = time.monotonic() - began
        workers = process.worker_pids()
        used = cpu(workers)
        edit = _edit(process, folder, sink) if sink else 0.0
        memory = rss(workers)
        before = cpu(workers)
        time.sleep(IDLE)
        idle = (cpu(workers) - before) / IDLE * 1000
        report.row(label, ready, rss([process.process.pid]), memory, used, idle)
    finally:
        process.stop(timeout=60)
    return ready, memory, edit


def _edit(process: BusProcess, folder: Path, sink: Subscriber) -> float:
    late = manifest("Subscription", "late", channel="c7", subscriber=sink.url("late"))
    began = time.monotonic()
    (folder / "late.yaml").write_text(yaml.safe_dump(late))
    wait_for(lambda: process.send("c7").status == 202 and sink.bodies("late"), 60, "the new subscription gets an event")
    return time.monotonic() - began
