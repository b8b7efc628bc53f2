"""What the folder source deletes, what it does not, and that it says so."""

from __future__ import annotations

from pathlib import Path

import pytest

from bus_core.sources import manifests
from tests.sources.watcher import channel, watching, write
from tests.support import wait_for


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever sees what a look brought sees what it deleted."""
    monkeypatch.setattr(manifests, "SECOND_LOOK", 0.0)


def put(path: Path, *objects: object) -> None:
    """Write a file in one step: between two it would be empty."""
    write(path.with_suffix(".new"), *objects)
    path.with_suffix(".new").replace(path)


def test_a_mistyped_group_deletes_nothing(folder: Path, tmp_path: Path) -> None:
    write(folder / "a.yaml", channel("a"))
    write(folder / "b.yaml", channel("b"))
    with watching(folder, tmp_path / "state") as watcher:
        put(folder / "a.yaml", channel("a") | {"apiVersion": "channel.knative.dev/v1alpha1"})
        (folder / "b.yaml").unlink()
        put(folder / "c.yaml", channel("c"))
        wait_for(lambda: watcher.channel("c"))
        assert watcher.channel("a")
        assert watcher.channel("b")
