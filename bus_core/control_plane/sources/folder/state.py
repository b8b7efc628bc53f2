"""The state directory: what a cluster's API server would remember of the resources in a folder of manifests.

One JSON file a resource, replaced atomically; read-modify-write happens under one lock that all processes share.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from bus_core.model.errors import ConfigurationError
from bus_core.model.references import BusReference
from bus_core.model.resources import Kind, ResourceKey
from bus_core.telemetry import get_logger

_VERSION = 1

log = get_logger(__name__)

Object = dict[str, Any]
_Signature = tuple[int, int, int]


def default_state_dir(folder: Path, bus: BusReference) -> Path:
    """Where the state of this folder and bus is kept unless `--state-dir` says otherwise (XDG Base Directory)."""
    home = os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    digest = hashlib.sha256(f"{folder.resolve()}\0{bus}".encode()).hexdigest()[:12]
    return Path(home) / "bus-core" / f"{bus.namespace or 'cluster'}-{bus.name}-{digest}"


@dataclass(frozen=True, slots=True)
class Entry:
    """A stored resource, and the manifest file it came from (empty: it was made in memory)."""

    object: Object
    origin: str


class StateDirectory:
    """Reads and writes the stored resources. Thread-safe, and safe between processes within `transaction`.

    Args:
        path: made if it does not exist.
        folder: the watched folder, which must not hold it: a bus never writes into its user's manifests.

    Raises:
        ConfigurationError: `path` is inside the folder, or cannot be made or written.
    """

    def __init__(self, path: Path, folder: Path) -> None:
        inside = path.resolve()
        if folder.resolve() == inside or folder.resolve() in inside.parents:
            raise ConfigurationError(
                f"the state directory {path} is inside the manifests {folder}; choose another with --state-dir"
            )
        self.path = path
        self.resources = path / "resources"
        try:
            self.resources.mkdir(parents=True, exist_ok=True)
            self._lock_file = (path / "resources.lock").open("a")
        except OSError as error:
            raise ConfigurationError(
                f"the state directory {path} cannot be used: {error.strerror}; choose another with --state-dir"
            ) from None
        self._lock = threading.RLock()
        self._parsed: dict[Path, tuple[_Signature, Entry | None]] = {}

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """Nobody else, in this process or another, changes the state meanwhile."""
        with self._lock:
            fcntl.flock(self._lock_file, fcntl.LOCK_EX)
            try:
                yield
            finally:
                fcntl.flock(self._lock_file, fcntl.LOCK_UN)

    def read(self, key: ResourceKey) -> Entry | None:
        """The stored resource, or None."""
        return self._read(self._path(key))

    def read_all(self) -> dict[ResourceKey, Entry]:
        """Every stored resource. Files that have not changed since the last call are not parsed again."""
        entries = {}
        with self._lock:
            paths = set(self.resources.glob("*.json"))
            for path in paths:
                entry = self._read(path)
                if entry is not None:
                    entries[_key(entry.object)] = entry
            self._parsed = {path: known for path, known in self._parsed.items() if path in paths}
        return entries

    def write(self, key: ResourceKey, entry: Entry) -> None:
        """Store a resource under the next resourceVersion. Call within a transaction."""
        metadata = entry.object["metadata"]
        metadata["resourceVersion"] = str(int(metadata.get("resourceVersion") or 0) + 1)
        path = self._path(key)
        temporary = path.with_suffix(".tmp")
        content = {"version": _VERSION, "origin": entry.origin, "object": entry.object}
        temporary.write_text(json.dumps(content, indent=1), encoding="utf-8")
        temporary.replace(path)

    def remove(self, key: ResourceKey) -> None:
        """Forget a resource. Call within a transaction."""
        self._path(key).unlink(missing_ok=True)

    def _path(self, key: ResourceKey) -> Path:
        # Names are DNS labels, so the dots part them without doubt.
        return self.resources / f"{key.kind}.{key.namespace}.{key.name}.json"

    def _read(self, path: Path) -> Entry | None:
        try:
            stat = path.stat()
        except FileNotFoundError:
            self._parsed.pop(path, None)
            return None
        signature = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
        known = self._parsed.get(path)
        if known is None or known[0] != signature:
            # What a damaged file said before still holds in this process: its resource has not been deleted.
            known = self._parsed[path] = (signature, _parse(path) or (known[1] if known else None))
        return known[1]


def _parse(path: Path) -> Entry | None:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["version"] != _VERSION:
            raise ValueError(f"version {content['version']} is not known")
        _key(content["object"])
        return Entry(content["object"], content["origin"])
    except (ValueError, KeyError, TypeError, OSError) as error:
        # One damaged file must not take the others along; its manifest brings the resource back.
        log.error(
            "a state file cannot be read and is left out", path=str(path), detail=f"{type(error).__name__}: {error}"
        )
        return None


def _key(data: Object) -> ResourceKey:
    metadata = data["metadata"]
    return ResourceKey(cast(Kind, data["kind"]), metadata.get("namespace") or "", metadata["name"])
