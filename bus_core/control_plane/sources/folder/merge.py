"""Source: updates the state from the folder: new, changed and deleted resources."""

from __future__ import annotations

import copy
import datetime as dt
import sqlite3
import uuid
from collections.abc import Iterable
from dataclasses import dataclass

from bus_core.control_plane.crds.validation import changed_immutable
from bus_core.control_plane.sources.folder.deletion import Deletions
from bus_core.control_plane.sources.folder.manifests import Document
from bus_core.control_plane.sources.folder.objects import Object, manifest_digest
from bus_core.control_plane.sources.folder.scan import Scan
from bus_core.control_plane.sources.folder.state import Entry, StateDirectory
from bus_core.model.resources import Kind, ResourceKey
from bus_core.telemetry import get_logger

log = get_logger(__name__)

_DIFFERING = """
    SELECT w.kind, w.namespace, w.name, w.path FROM wanted w
    LEFT JOIN resources r ON r.kind = w.kind AND r.namespace = w.namespace AND r.name = w.name
    WHERE r.name IS NULL OR (r.deleted = 0 AND (r.digest <> w.digest OR r.origin <> w.path))"""

_MISSING = """
    SELECT r.kind, r.namespace, r.name, r.origin FROM resources r WHERE r.deleted = 0 AND NOT EXISTS (
        SELECT 1 FROM wanted w WHERE w.kind = r.kind AND w.namespace = r.namespace AND w.name = r.name)"""

_WANTED_ONE = "SELECT kind, namespace, name, path FROM wanted WHERE kind = ? AND namespace = ? AND name = ?"


@dataclass(frozen=True, slots=True)
class _Gone:
    """A resource that was deleted in this scan, for the log."""

    key: ResourceKey
    origin: str


class Merge:
    """Updates the state from the folder, with one transaction per scan. Used by one thread."""

    def __init__(self, state: StateDirectory, scan: Scan, deletions: Deletions) -> None:
        self._state = state
        self._scan = scan
        self._deletions = deletions
        self._complaints: frozenset[str] = frozenset()

    def look(self, damaged: Iterable[ResourceKey] = ()) -> None:
        """Scan the folder, and update the state where it differs.

        The first process does the work; the others find nothing to do.

        Args:
            damaged: stored resources that cannot be read. Their manifests restore them.

        Raises:
            OSError, sqlite3.Error, ConfigurationError: folder or state cannot be used now. Nothing was changed.
        """
        gone: list[_Gone] = []
        try:
            with self._state.transaction(durable=True) as connection:
                reading = self._scan.read(connection)
                complaints = [str(error) for error in reading.errors]
                for row in _differing(connection, damaged):
                    complaint = self._take_in(ResourceKey(*row[:3]), row[3])
                    if complaint:
                        complaints.append(complaint)
                missing = {ResourceKey(*row[:3]): row[3] for row in connection.execute(_MISSING).fetchall()}
                for key in self._deletions.due(reading, missing):
                    if self._delete(key):
                        gone.append(_Gone(key, missing[key]))
        except BaseException:
            self._scan.forget()
            raise
        finally:
            self._scan.done()
        for one in gone:
            log.info(
                "deleted, because it is missing from the folder",
                resource=str(one.key),
                folder=str(self._scan.folder),
                file=one.origin,
            )
        for complaint in sorted(set(complaints) - self._complaints):
            log.warning("a manifest is invalid; its last valid resource stays", detail=complaint)
        self._complaints = frozenset(complaints)

    def _take_in(self, key: ResourceKey, path: str) -> str:
        """Store a new or changed manifest. Returns an error text if the change is not allowed."""
        document = self._scan.document(path, key)
        if document is None:
            return ""  # the file has changed since it was listed: the next scan reads it
        entry = self._state.read(key)
        if entry is None:
            self._state.write(key, _fresh(key, document, path))
            return ""
        if entry.object["metadata"].get("deletionTimestamp"):
            return ""  # the deleted resource has to vanish first; then a new one is stored
        spec = document.data.get("spec") or {}
        problem = changed_immutable(entry.object, {**document.data, "spec": spec})
        if problem is not None:
            return str(document.error(problem))
        changed = copy.deepcopy(entry.object)
        metadata = changed["metadata"]
        if changed.get("spec") != spec:
            changed["spec"] = spec
            metadata["generation"] = int(metadata.get("generation") or 1) + 1
        for name in ("labels", "annotations"):
            metadata.pop(name, None)
        self._state.write(key, Entry(changed | {"metadata": metadata | _about(document)}, path, _digest(document)))
        return ""

    def _delete(self, key: ResourceKey) -> bool:
        entry = self._state.read(key)
        if entry is None:
            return False
        metadata = entry.object["metadata"]
        metadata["deletionTimestamp"] = dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        self._state.write(key, entry)
        return True


def _differing(connection: sqlite3.Connection, damaged: Iterable[ResourceKey]) -> list[tuple[Kind, str, str, str]]:
    rows = connection.execute(_DIFFERING).fetchall()
    for key in damaged:
        rows += connection.execute(_WANTED_ONE, (key.kind, key.namespace, key.name)).fetchall()
    return rows


def _fresh(key: ResourceKey, document: Document, path: str) -> Entry:
    metadata = {"name": key.name, "namespace": key.namespace, "uid": str(uuid.uuid4()), "generation": 1}
    made: Object = {
        "apiVersion": document.data["apiVersion"],
        "kind": key.kind,
        "metadata": metadata | _about(document),
        "spec": document.data.get("spec") or {},
    }
    return Entry(made, path, _digest(document))


def _about(document: Document) -> Object:
    metadata = document.data["metadata"]
    return {name: metadata[name] for name in ("labels", "annotations") if metadata.get(name)}


def _digest(document: Document) -> str:
    return manifest_digest(document.data)
