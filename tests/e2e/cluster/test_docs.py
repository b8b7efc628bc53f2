"""What the Kubernetes page tells people to type, typed against a real API server."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.docs.reader import Reader
from tests.e2e.cluster.server import ApiServer
from tests.support import ROOT


def test_the_blocks_of_the_page_run_in_order(tmp_path: Path) -> None:
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is missing")
    server = ApiServer(tmp_path / "api").start()
    reader = Reader(tmp_path / "reader", KUBECONFIG=str(server.kubeconfig("admin")))
    shutil.copytree(ROOT / "deploy", reader.folder / "deploy")
    for name in ("deploy", "control_plane/crds"):
        shutil.copytree(ROOT / "bus_core" / name, reader.folder / "bus_core" / name)
    try:
        reader.follow(ROOT / "docs" / "kubernetes.md")
    finally:
        reader.close()
        server.stop()
