"""The other commands of `bus`, as a shell sees them."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path

import pytest
import yaml

from tests.cli.shell import run
from tests.support import BUS, QUICKSTART
from tests.zygote import run_bus


def test_demo_without_a_terminal_does_the_main_job_and_ends() -> None:
    began = time.monotonic()
    result = run("demo")
    assert result.returncode == 0, result.stderr
    assert time.monotonic() - began < 30
    for name in ("shipping", "billing", "mailbox"):
        assert result.stdout.count(f"→ {name}") == 3
    assert "all 3 events reached every subscription" in result.stdout


def test_crds_prints_four_definitions() -> None:
    definitions = list(yaml.safe_load_all(run_bus("crds").stdout))
    kinds = [definition["spec"]["names"]["kind"] for definition in definitions]
    assert kinds == ["Bus", "ClusterBus", "Channel", "Subscription"]


def test_crds_into_a_pipe_that_closes_ends_quietly() -> None:
    result = subprocess.run(
        f"{BUS} crds | head -n 1", shell=True, capture_output=True, text=True, check=False, timeout=30
    )
    assert "Traceback" not in result.stderr
    assert result.stdout.startswith("#")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize("command", ["crds", "plugins", f"validate {QUICKSTART}", "--help"])
def test_output_for_which_there_is_no_room_is_one_sentence(command: str) -> None:
    result = subprocess.run(
        f"{BUS} {command} > /dev/full", shell=True, capture_output=True, text=True, check=False, timeout=30
    )
    assert result.returncode == 1
    assert result.stderr == (
        "Error: the output could not be written: No space left on device; free some space, or write elsewhere\n"
    )


def test_plugins_as_json() -> None:
    drivers = json.loads(run_bus("plugins", "-o", "json").stdout)
    assert [(driver["name"], driver["package"], driver["problem"]) for driver in drivers] == [
        ("kafka", "kafka-bus", ""),
        ("stub", "stub-bus", ""),
    ]


def test_help_names_every_command() -> None:
    text = run("--help").stdout
    for command in ("run", "demo", "send", "validate", "plugins", "crds", "manifests", "completion"):
        assert f"  {command} " in text


def test_help_says_which_paths_are_files() -> None:
    text = run_bus("run", "--help").stdout
    for option in ("--kubeconfig FILE", "--config FILE", "--manifests DIR", "--secrets-dir DIR"):
        assert option in text
