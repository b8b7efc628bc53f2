"""The commands of the Kubernetes page, against a real API server that has Knative's kinds of the same names as well."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.docs.reader import Reader
from tests.e2e.cluster.neighbours import install_neighbours
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
    install_neighbours(server)
    try:
        reader.follow(ROOT / "docs" / "kubernetes.md")
    finally:
        reader.close()
        server.stop()
