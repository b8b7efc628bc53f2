"""The built wheels in a clean environment, beside a driver package that this repository does not know."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml

from tests.packages import RECORDING
from tests.support import ROOT, free_port, manifest, request, subscriber, wait_for

UV = Path(sys.executable).with_name("uv")

PYPROJECT = """
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "outside-bus"
version = "2.5"
description = "A driver from elsewhere"
dependencies = ["bus-core"]

[project.entry-points."bus_core.drivers"]
outside = "recording_bus:RecordingBus"

[tool.hatch.build.targets.wheel]
include = ["recording_bus.py"]
"""


def uv(*arguments: str | Path) -> None:
    result = subprocess.run([UV, *arguments], capture_output=True, text=True, check=False, timeout=300)
    assert result.returncode == 0, result.stderr


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheels")
    outside = tmp_path_factory.mktemp("outside")
    (outside / "pyproject.toml").write_text(PYPROJECT)
    (outside / "recording_bus.py").write_text(RECORDING)
    for project in (ROOT, ROOT / "plugins" / "stub_bus", ROOT / "plugins" / "kafka_bus", outside):
        uv("build", "--quiet", "--wheel", "--no-build-isolation", "--out-dir", folder, project)
    return folder


@pytest.fixture(scope="module")
def clean(wheels: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the wheels, and with no source tree in sight."""
    folder = tmp_path_factory.mktemp("clean") / "env"
    uv("venv", "--quiet", "--python", sys.executable, folder)
    pins = wheels / "pins.txt"
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins.write_text("\n".join(line.rstrip(" \\") for line in lines if "==" in line and not line.startswith((" ", "#"))))
    uv("pip", "install", "--quiet", "--python", folder / "bin" / "python", "--constraint", pins, *wheels.glob("*.whl"))
    return folder / "bin"


def run(command: Path, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    env = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    return subprocess.run(
        [command, *arguments], capture_output=True, text=True, cwd=cwd, env=env, check=False, timeout=60
    )


def test_the_wheel_carries_what_it_needs(wheels: Path) -> None:
    wheel = next(wheels.glob("bus_core-*.whl"))
    names = zipfile.ZipFile(wheel).namelist()
    for wanted in (
        "bus_core/py.typed",
        "bus_core/control_plane/crds/channel.yaml",
        "bus_core/examples/quickstart/channels.yaml",
        "bus_core/examples/manifests.schema.json",
    ):
        assert wanted in names
    assert not [name for name in names if name.startswith(("tests/", "plugins/"))]


def test_plugins_lists_the_driver_from_elsewhere(clean: Path, tmp_path: Path) -> None:
    listed = run(clean / "bus", "plugins", cwd=tmp_path).stdout
    assert "outside  (outside-bus 2.5)  A driver from elsewhere" in listed
    assert "stub  (stub-bus " in listed
    assert "kafka  (kafka-bus " in listed


def test_the_demo_runs_from_the_wheel(clean: Path, tmp_path: Path) -> None:
    result = run(clean / "bus", "demo", "--once", cwd=tmp_path)
    assert result.returncode == 0, result.stderr


def test_the_kafka_drivers_own_tests_pass_with_its_wheel(clean: Path, tmp_path: Path) -> None:
    """They need nothing of this repository: not its tests, not its settings."""
    pins = [f"{name}=={version(name)}" for name in ("pytest", "hypothesis")]
    uv("pip", "install", "--quiet", "--python", clean / "python", *pins)
    shutil.copytree(ROOT / "plugins" / "kafka_bus" / "tests", tmp_path / "own")
    result = run(clean / "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path / "own"), cwd=tmp_path)
    assert result.returncode == 0, result.stdout + result.stderr
    where = run(clean / "python", "-c", "import kafka_bus; print(kafka_bus.__file__)", cwd=tmp_path).stdout
    assert "site-packages" in where


@contextlib.contextmanager
def running(clean: Path, tmp_path: Path, manifests: Path) -> Iterator[str]:
    events, admin = (f"127.0.0.1:{free_port()}" for _ in range(2))
    env = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    command: list[str | Path] = [
        clean / "bus",
        "run",
        "--bus",
        "default/demo",
        "--driver",
        "outside",
        "--manifests",
        manifests,
    ]
    process = subprocess.Popen(
        [*command, "--state-dir", tmp_path / "state", "--bind", events, "--admin-bind", admin],
        cwd=tmp_path,
        env={**env, "RECORD": str(tmp_path / "record")},
        stderr=subprocess.DEVNULL,
    )

    def ready() -> bool:
        with contextlib.suppress(OSError):
            return request(admin, "GET", "/readyz", body=None).status == 200
        return False

    try:
        wait_for(ready, 20)
        yield events
    finally:
        process.terminate()
        assert process.wait(20) == 0


def test_the_driver_from_elsewhere_serves_a_bus(clean: Path, tmp_path: Path) -> None:
    manifests = tmp_path / "manifests"
    manifests.mkdir()
    with subscriber() as sink:
        one = manifest("Subscription", "one", channel="orders", subscriber=sink.url())
        (manifests / "all.yaml").write_text(yaml.safe_dump_all([manifest("Channel", "orders", bus="demo"), one]))
        with running(clean, tmp_path, manifests) as events:
            wait_for(lambda: request(events, host="orders.default", body=b"from afar").status == 202)
            wait_for(lambda: b"from afar" in sink.bodies())
    hooks = [line.split()[1] for line in (tmp_path / "record").read_text().splitlines()]
    assert hooks[:3] == ["sync_bus", "provision", "subscribe"]
    assert hooks[-1] == "closed"
