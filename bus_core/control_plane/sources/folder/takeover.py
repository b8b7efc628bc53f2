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

_FILE_VERSION = 1  # the only version of the files

log = get_logger(__name__)


def prepare(connection: sqlite3.Connection, directory: Path) -> None:
    """Create the tables in a new database, and migrate the state of an older version, in one transaction.

    After a crash, either the old files or the new database are complete. The old files are removed at the end.

    Raises:
        sqlite3.Error, OSError: the migration failed, and nothing was changed.
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
    """Hold the lock of the older version, so that no process of that version writes meanwhile."""
    path = directory / "resources.lock"
    if not path.exists():
        yield
        return
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _old_resources(directory: Path) -> Iterator[tuple[ResourceKey, Object, str]]:
    """Yield each stored resource with its key and its manifest file.

    A damaged file is logged and skipped; its manifest restores the resource. A destination that a bus refuses is
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
            log.error("skipped a state file that cannot be read", path=str(path), detail=detail)
