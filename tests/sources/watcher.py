"""A folder source that runs in a test, and the manifests that are written for it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from bus_core.control_plane.sources import Change
from bus_core.control_plane.sources.folder.source import ManifestSource
from bus_core.model.references import BusReference
from bus_core.model.resources import Channel, Resource, ResourceKey
from tests.support import manifest

BUS = BusReference("demo", "default")


class Watcher:
    """A source that runs, and what it reported."""

    def __init__(self, folder: Path, state: Path, **options: Any) -> None:
        self.source = ManifestSource(folder, BUS, state_dir=state, **options)
        self.now: dict[ResourceKey, Resource] = {}
        self.changes: list[Change] = []

    def on_change(self, change: Change) -> None:
        self.changes.append(change)
        if change.resource is None:
            self.now.pop(change.key, None)
        else:
            self.now[change.key] = change.resource

    def channel(self, name: str) -> Channel | None:
        found = self.now.get(ResourceKey("Channel", "default", name))
        assert found is None or isinstance(found, Channel)
        return found


@contextmanager
def watching(folder: Path, state: Path, **options: Any) -> Iterator[Watcher]:
    watcher, stop = Watcher(folder, state, **options), threading.Event()
    thread = threading.Thread(target=watcher.source.run, args=(watcher.on_change, stop))
    thread.start()
    try:
        assert watcher.source.synced.wait(5)
        yield watcher
    finally:
        stop.set()
        thread.join(2)
        assert not thread.is_alive(), "it stops within a moment"


def write(path: Path, *objects: Any) -> None:
    path.write_text(yaml.safe_dump_all(objects))


def channel(name: str, **spec: Any) -> dict[str, Any]:
    return manifest("Channel", name, **({"bus": "demo"} | spec))
