"""One API server for all tests of this folder that do it no harm, and a namespace of its own for each."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from bus_core.control_plane import crds
from tests.e2e.cluster.server import ApiServer
from tests.e2e.cluster.stage import Stage
from tests.support import wait_for

_numbers = itertools.count(1)


def _started(folder: Path) -> ApiServer:
    server = ApiServer(folder).start()
    server.kubectl("apply", "-f", "-", stdin=crds.text())
    names = ("buses", "clusterbuses", "channels", "subscriptions")
    wait_for(lambda: all(name in server.kubectl("api-resources") for name in names), 20, "the kinds are served")
    return server


@pytest.fixture(scope="session")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    server = _started(tmp_path_factory.mktemp("api"))
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture
def stage(api: ApiServer, tmp_path: Path) -> Iterator[Stage]:
    made = Stage(api, tmp_path, f"stage-{next(_numbers)}")
    yield made
    made.close()


@pytest.fixture
def lone(tmp_path: Path) -> Iterator[Stage]:
    """A namespace on an API server that the test may do harm to."""
    server = _started(tmp_path / "api")
    made = Stage(server, tmp_path, "lone")
    try:
        yield made
    finally:
        made.close()
        server.stop()
