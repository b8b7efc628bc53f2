"""Source: takes over the state directory of an older version, with one JSON file a resource, into the new database."""

from __future__ import annotations

import contextlib
import fcntl
import json
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bus_core.control_plane.sources.folder.database import INSERT, SCHEMA, VERSION, sync_directory
from bus_core.control_plane.sources.folder.objects import (
    Object,
    manifest_digest,
    masked_destinations,
    object_key,
)
from bus_core.model.resources import ResourceKey
from bus_core.telemetry import get_logger

_FILE_VERSION = 1  # of the files, the only one there ever was

log = get_logger(__name__)


def prepare(connection: sqlite3.Connection, directory: Path) -> None:
    """Create the tables in a new database, and take over what an older version stored, in one transaction.

    A crash leaves the old files complete, or the new database complete; the old files are removed after it.

    Raises:
        sqlite3.Error, OSError: that is not possible now, and nothing has changed.
    """
    if _version(connection) == 0:
        connection.execute("PRAGMA synchronous = FULL")
        with _old_lock(directory):
            connection.execute("BEGIN IMMEDIATE")
            try:
                if _version(connection) == 0:  # else another process was first
                    _fill(connection, directory)
                connection.execute("COMMIT")
            except BaseException:
                connection.execute("ROLLBACK")
                raise
        sync_directory(directory)
    if (directory / "resources").exists():
        shutil.rmtree(directory / "resources", ignore_errors=True)
        with contextlib.suppress(OSError):
            (directory / "resources.lock").unlink(missing_ok=True)


def _version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def _fill(connection: sqlite3.Connection, directory: Path) -> None:
    for statement in SCHEMA:
        connection.execute(statement)
    for key, found, origin in _old_resources(directory):
        deleted = bool(found["metadata"].get("deletionTimestamp"))
        text = json.dumps(found, ensure_ascii=False, separators=(",", ":"))
        row = (key.kind, key.namespace, key.name, origin, manifest_digest(found), deleted, text)
        connection.execute(INSERT, row)
    connection.execute(f"PRAGMA user_version = {VERSION}")


@contextlib.contextmanager
def _old_lock(directory: Path) -> Iterator[None]:
    """Hold the lock of the old kind, so that no process of an older version writes meanwhile."""
    path = directory / "resources.lock"
    if not path.exists():
        yield
        return
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _old_resources(directory: Path) -> Iterator[tuple[ResourceKey, Object, str]]:
    """Each stored resource with its key and the manifest file it came from.

    A damaged file is logged and left out; its manifest brings the resource back. A destination that a bus refuses is
    yielded without its user information.
    """
    for path in sorted((directory / "resources").glob("*.json")):
        try:
            content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            if content["version"] != _FILE_VERSION:
                raise ValueError(f"version {content['version']} is not known")
            found = masked_destinations(content["object"])
            int(found["metadata"].get("resourceVersion") or 0)
            yield object_key(found), found, str(content["origin"])
        except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
            detail = f"{type(error).__name__}: {error}"
            log.error("a state file cannot be read and is left out", path=str(path), detail=detail)
