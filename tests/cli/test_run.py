"""`bus run`: what it says at its start, and how it ends."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

import pytest

from tests.support import BUS, QUICKSTART, BusProcess, Subscriber, bus, subscriber, wait_for


@pytest.mark.parametrize(("name", "kind"), [("default/demos", "Bus"), ("demo", "ClusterBus")])
def test_a_bus_that_no_manifest_names_is_made_and_said(tmp_path: Path, name: str, kind: str) -> None:
    process = BusProcess(QUICKSTART, tmp_path / "state", "--driver", "stub", bus=name)
    try:
        process.wait_ready()
        there = "there is default/demo, and no channel names it"
        assert process.says("warning", f"there is no {kind} {name} in {QUICKSTART} ({there}); creating one in memory")
    finally:
        process.kill()


def test_a_bus_made_for_the_channels_that_name_it_is_no_warning(running: tuple[BusProcess, Subscriber]) -> None:
    process, _ = running
    assert process.says('"level": "info"', "there is no Bus default/demo in", "creating one in memory")
    assert not process.says('"level": "warning"')


def test_a_run_that_waits_for_its_bus_says_so_and_ends_when_told() -> None:
    process = subprocess.Popen(
        [str(BUS), "run", "--bus", "default/demo", "--master", "https://127.0.0.1:1"],
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    assert "the API server cannot be reached" in process.stderr.readline()
    assert "waiting for the bus" in process.stderr.readline()
    process.send_signal(signal.SIGTERM)
    assert process.wait(5) == 0
    process.stderr.close()


def test_ctrl_c_ends_a_run_with_0_and_what_is_not_done_with_130(tmp_path: Path) -> None:
    with subscriber() as sink:
        sending = ["send", "orders", "--count", "1000", "--rate", "5", "--to", sink.url()]
        # In the background of a script SIGINT is ignored, and a child would inherit that.
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        process = subprocess.Popen([BUS, *sending], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        signal.signal(signal.SIGINT, before)
        wait_for(lambda: sink.requests, 20)
        process.send_signal(signal.SIGINT)
        assert b"Traceback" not in process.communicate(timeout=10)[1]
        assert process.returncode == 130
    with bus(QUICKSTART, tmp_path, "--driver", "stub") as serving:
        assert serving.stop(signal.SIGINT) == 0
