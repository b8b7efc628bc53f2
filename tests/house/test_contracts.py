"""The import contracts can fail: a forbidden import breaks them."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import ROOT

LINT = Path(sys.executable).with_name("lint-imports")


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The packages and the contracts, without the rest."""
    folder = tmp_path_factory.mktemp("house")
    for package in (ROOT / "bus_core", *ROOT.glob("plugins/*/*_bus")):
        shutil.copytree(package, folder / package.name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


@pytest.mark.parametrize(
    ("file", "line", "contract"),
    [
        ("bus_core/model/references.py", "import bus_core.model.resources", "inside the model"),
        ("bus_core/control_plane/monitor/cache.py", "import bus_core.data_plane.delivery", "floors"),
        ("bus_core/control_plane/sources/folder/check.py", "import bus_core.data_plane.dispatch", "floors"),
        ("bus_core/control_plane/monitor/cache.py", "import bus_core.data_plane.delivery", "planes"),
        ("bus_core/driver/calls.py", "import bus_core.driver.loader", "floors"),
        ("bus_core/model/destination.py", "import bus_core.model.resources", "inside the model"),
        ("bus_core/model/message.py", "import bus_core.model.errors", "inside the model"),
        ("bus_core/data_plane/delivery/lane.py", "import urllib3", "only dispatch and cluster import urllib3"),
        ("bus_core/control_plane/sources/folder/check.py", "import kubernetes", "only cluster imports kubernetes"),
        ("bus_core/host/host.py", "import gunicorn", "only server imports gunicorn"),
        ("bus_core/deploy/__init__.py", "import gunicorn", "only server imports gunicorn"),
        ("bus_core/control_plane/cluster/paths.py", "import falcon", "only receiver and admin import falcon"),
        ("bus_core/control_plane/cluster/paths.py", "import httptools", "only dispatch and server import httptools"),
        (
            "bus_core/control_plane/monitor/applied_state.py",
            "import prometheus_client",
            "only telemetry imports prometheus_client",
        ),
        ("bus_core/host/host.py", "import pluggy", "only driver imports pluggy"),
        ("bus_core/host/host.py", "import watchfiles", "only sources imports watchfiles"),
        ("bus_core/host/run_config.py", "import rich", "only cli imports click and rich"),
        ("bus_core/host/host.py", "import stub_bus", "drivers do not know each other"),
        ("kafka_bus/ordered_submitter.py", "import stub_bus", "drivers do not know each other"),
        ("kafka_bus/ordered_submitter.py", "from bus_core.model.errors import BusyError", "a driver imports"),
        ("stub_bus/__init__.py", "import bus_core.data_plane.delivery", "a driver imports"),
    ],
)
def test_a_forbidden_import_breaks_a_contract(copy: Path, file: str, line: str, contract: str) -> None:
    path = copy / file
    before = path.read_text()
    path.write_text(
        before.replace("from __future__ import annotations\n", f"from __future__ import annotations\n{line}\n")
    )
    try:
        result = subprocess.run(
            [LINT, "--no-cache"],
            cwd=copy,
            capture_output=True,
            text=True,
            check=False,
            env={"PYTHONPATH": str(copy), "COLUMNS": "300"},
        )
    finally:
        path.write_text(before)
    assert result.returncode != 0
    assert any(contract in text and "BROKEN" in text for text in result.stdout.splitlines()), result.stdout
