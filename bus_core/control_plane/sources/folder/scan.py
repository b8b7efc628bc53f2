"""Source: scans the folder. Reads only the files that have changed since any process read them."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from bus_core.control_plane.crds import text as schema_text
from bus_core.control_plane.sources.folder.manifests import Document, File, list_manifests, read_file, repetition
from bus_core.control_plane.sources.folder.objects import digest_of, manifest_digest
from bus_core.model.errors import ManifestError
from bus_core.model.resources import ResourceKey

GRANULE = 0.02
"""Seconds. Two changes of a file within one clock tick of its file system have the same mtime. So the next scan reads
a file again if it changed that recently."""

_MADE = ""
"""The path of objects made in memory."""


@dataclass(frozen=True, slots=True)
class Reading:
    """The result of a scan.

    Attributes:
        exists: False if the folder itself is missing.
        errors: the errors of its files.
        resources: the number of resources in valid files.
    """

    exists: bool
    errors: tuple[ManifestError, ...]
    resources: int


class Scan:
    """Scans one folder. Used by one thread. All processes share the tables `files` and `documents`.

    Args:
        folder: of the manifests.
        made: more objects, which override those of the folder.
    """

    def __init__(self, folder: Path, made: Sequence[Mapping[str, Any]]) -> None:
        self.folder = folder
        self.took = 0.0
        self._made = [Document(Path(), data) for data in made]
        self._listed: dict[str, str] | None = None  # signatures of the last complete scan
        self._broken: dict[str, tuple[str, File]] = {}  # signature and errors, by path
        self._fresh: dict[str, tuple[Document, ...]] = {}  # read in this scan

    def changed(self) -> bool:
        """Whether a file was added, removed or changed since the last `read`. Takes 40 ms for 10,000 files.

        Raises:
            OSError: the folder cannot be listed.
        """
        began = time.monotonic()
        changed = self._list() != self._listed
        self.took = time.monotonic() - began
        return changed

    def forget(self) -> None:
        """Note that the scan failed: its files count as changed."""
        self._listed = None

    def read(self, connection: sqlite3.Connection) -> Reading:
        """Update the tables from the folder. Call it within a transaction, and `done` after it.

        Raises:
            OSError: the folder cannot be listed.
        """
        self._listed = None
        self._fresh.clear()
        listed, now = self._list(), time.time()
        self._forget_other_rules(connection)
        known = dict(connection.execute("SELECT path, signature FROM files"))
        self._read_made(connection, known.pop(_MADE, None))
        gone = known.keys() - listed.keys()
        unread = [path for path, signature in listed.items() if known.get(path) != signature]
        self._drop(connection, [path for path in (*gone, *unread) if path in known])
        self._broken = {path: found for path, found in self._broken.items() if path in listed}
        for path in unread:
            self._read(connection, path, listed[path], now)
        repeated = self._repeated(connection)
        errors = [error for _, file in sorted(self._broken.items()) for error in file[1].errors] + repeated
        count = "SELECT count(*) FROM documents WHERE repeated = 0 AND path <> ''"
        reading = Reading(self.folder.is_dir(), tuple(errors), int(connection.execute(count).fetchone()[0]))
        self._listed = {path: "" if _is_recent(held, now) else held for path, held in listed.items()}
        return reading

    def document(self, path: str, key: ResourceKey) -> Document | None:
        """The manifest of a resource, from memory if this scan has read its file; None if it has just changed."""
        documents = self._made if path == _MADE else self._documents(path)
        return next((document for document in documents if document.key == key), None)

    def done(self) -> None:
        """Free the manifests of this scan: the state contains them now."""
        self._fresh.clear()

    def _list(self) -> dict[str, str]:
        return list_manifests(self.folder) if self.folder.is_dir() else {}

    def _forget_other_rules(self, connection: sqlite3.Connection) -> None:
        """Forget the files that another version validated, so that they are read again."""
        rules = f"{metadata.version('bus-core')} {digest_of(schema_text())}"
        if connection.execute("SELECT name FROM rules").fetchone()[0] != rules:
            connection.execute("DELETE FROM files")
            connection.execute("DELETE FROM documents")
            connection.execute("UPDATE rules SET name = ?", (rules,))

    def _read_made(self, connection: sqlite3.Connection, known: str | None) -> None:
        signature = digest_of(json.dumps([document.data for document in self._made], sort_keys=True))
        if known != signature:
            self._drop(connection, [_MADE])
            _keep(connection, _MADE, signature, self._made)

    def _read(self, connection: sqlite3.Connection, path: str, signature: str, now: float) -> None:
        """Read one file, or take its errors from memory."""
        before = self._broken.pop(path, None)
        if before is not None and before[0] == signature:
            self._broken[path] = before
            return
        file = read_file(Path(path))
        remembered = "" if _is_recent(signature, now) else signature
        if file.errors:
            self._broken[path] = (remembered, file)
            return
        self._fresh[path] = file.documents
        # A file that repeats a resource of its own is read at every scan, because it has errors to report.
        _keep(connection, path, "" if _repeats_itself(file.documents) else remembered, file.documents)

    def _documents(self, path: str) -> Sequence[Document]:
        if path not in self._fresh:
            self._fresh[path] = read_file(Path(path)).documents
        return self._fresh[path]

    def _drop(self, connection: sqlite3.Connection, paths: Iterable[str]) -> None:
        rows = [(path,) for path in paths]
        connection.executemany("DELETE FROM files WHERE path = ?", rows)
        connection.executemany("DELETE FROM documents WHERE path = ?", rows)

    def _repeated(self, connection: sqlite3.Connection) -> list[ManifestError]:
        """Mark the documents of each file that repeats a resource of an earlier file. Returns the errors."""
        rows = connection.execute(_PATHS_OF_REPEATED)
        involved = {path for (path,) in rows}
        involved |= {path for path, documents in self._fresh.items() if _repeats_itself(documents)}
        marked = {path for (path,) in connection.execute("SELECT DISTINCT path FROM documents WHERE repeated = 1")}
        seen: dict[ResourceKey, Document] = {}
        errors: list[ManifestError] = []
        repeating = set()
        for path in sorted(involved, key=Path):
            for document in self._documents(path):
                first = seen.setdefault(document.key, document)
                if first is not document:
                    errors.append(repetition(document, first))
                    repeating.add(path)
        if repeating != marked:
            connection.execute("UPDATE documents SET repeated = 0 WHERE repeated = 1")
            connection.executemany("UPDATE documents SET repeated = 1 WHERE path = ?", [(path,) for path in repeating])
        return errors


_PATHS_OF_REPEATED = """
    SELECT DISTINCT path FROM documents NATURAL JOIN (
        SELECT kind, namespace, name FROM documents WHERE path <> '' GROUP BY kind, namespace, name HAVING count(*) > 1
    ) WHERE path <> ''"""


def _keep(connection: sqlite3.Connection, path: str, signature: str, documents: Iterable[Document]) -> None:
    connection.execute("INSERT INTO files VALUES (?, ?)", (path, signature))
    rows = [(path, *astuple(document.key), manifest_digest(document.data)) for document in documents]
    connection.executemany("INSERT OR REPLACE INTO documents VALUES (?, ?, ?, ?, ?, 0)", rows)


def _repeats_itself(documents: Sequence[Document]) -> bool:
    return len({document.key for document in documents}) < len(documents)


def _is_recent(signature: str, now: float) -> bool:
    """Whether the file may change again without changing its signature."""
    modified, changed = signature.split()[:2]
    return max(int(modified), int(changed)) / 1e9 > now - GRANULE
