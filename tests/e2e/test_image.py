"""What the Containerfile runs works outside a container: wheels, an environment of its own, a bus that starts."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.support import ROOT


def test_the_steps_of_the_image(tmp_path: Path) -> None:
    wheels, target = tmp_path / "wheels", tmp_path / "bus"
    subprocess.run(["sh", str(ROOT / "deploy" / "build-wheels"), str(wheels)], check=True, timeout=200)
    command = ["sh", str(ROOT / "deploy" / "install"), str(wheels), str(target), "stub-bus kafka-bus"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True, timeout=200).stdout
    assert "stub  (stub-bus" in listed
    assert "kafka  (kafka-bus" in listed
    demo = subprocess.run([target / "bin" / "bus", "demo", "--once"], capture_output=True, text=True, check=False)
    assert demo.returncode == 0, demo.stderr
