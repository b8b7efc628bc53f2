"""Source: opens the SQLite database of a state directory, and reports why a database cannot be used."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import stat
from pathlib import Path

from bus_core.model.errors import ConfigurationError

FILE = "state.db"

VERSION = 1
"""The schema's version, stored in `PRAGMA user_version`. A new database has 0."""

BUSY_TIMEOUT = 30.0
"""Seconds to wait for another process's transaction. The first merge of 10,000 manifests takes a few."""

OWN_NAMES = frozenset({FILE, f"{FILE}-wal", f"{FILE}-shm", "resources", "resources.lock", "leadership"})
"""Every name that a bus creates in its state directory."""

SCHEMA = (
    # One row per resource. `object`: JSON as from an API server. `digest`: of its manifest.
    # `change`: grows with each write and is never reused, so a reader asks for rows above the last one it saw.
    """CREATE TABLE resources (
        change INTEGER PRIMARY KEY AUTOINCREMENT,
        kind TEXT NOT NULL, namespace TEXT NOT NULL, name TEXT NOT NULL, origin TEXT NOT NULL, digest TEXT NOT NULL,
        deleted INTEGER NOT NULL, object TEXT NOT NULL, UNIQUE (kind, namespace, name))""",
    # The valid files. No process reads them again before they change.
    "CREATE TABLE files (path TEXT PRIMARY KEY, signature TEXT NOT NULL) WITHOUT ROWID",
    # The resources of those files. `repeated` is 1 if an earlier file contains the same resource.
    """CREATE TABLE documents (
        path TEXT NOT NULL, kind TEXT NOT NULL, namespace TEXT NOT NULL, name TEXT NOT NULL, digest TEXT NOT NULL,
        repeated INTEGER NOT NULL DEFAULT 0, PRIMARY KEY (kind, namespace, name, path)) WITHOUT ROWID""",
    "CREATE INDEX documents_by_path ON documents (path)",
    # The wanted resources. An object made in memory (its path is empty) overrides one of the folder.
    """CREATE VIEW wanted AS SELECT * FROM documents d WHERE d.repeated = 0 AND (d.path = '' OR NOT EXISTS (
        SELECT 1 FROM documents m
        WHERE m.kind = d.kind AND m.namespace = d.namespace AND m.name = d.name AND m.path = ''))""",
    # The validation rules that `files` passed.
    "CREATE TABLE rules (name TEXT NOT NULL)",
    "INSERT INTO rules VALUES ('')",
)

INSERT = """INSERT OR REPLACE INTO resources (kind, namespace, name, origin, digest, deleted, object)
    VALUES (?, ?, ?, ?, ?, ?, ?)"""


def make_private(directory: Path) -> None:
    """Create the directory and its missing parents, for this user only (0700), as XDG requires.

    An existing directory becomes 0700 if it belongs to this user and contains only files of a bus.

    Raises:
        OSError: the directory cannot be created.
    """
    missing = [path for path in (directory, *directory.parents) if not path.exists()]
    for path in reversed(missing):
        path.mkdir(mode=0o700, exist_ok=True)
    held = directory.stat()
    ours = held.st_uid == os.geteuid() and {entry.name for entry in directory.iterdir()} <= OWN_NAMES
    if ours and stat.S_IMODE(held.st_mode) & 0o077:
        directory.chmod(0o700)


def connect(directory: Path) -> sqlite3.Connection:
    """Open the database in write-ahead mode. A new file has mode 0600; SQLite's other two files get the same mode.

    One thread at a time may use the connection. Do not use it after a fork.

    Raises:
        ConfigurationError: the database cannot be used; the text names the remedy.
    """
    path = directory / FILE
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            held = os.fstat(handle)
            if held.st_uid == os.geteuid() and stat.S_IMODE(held.st_mode) & 0o077:
                os.fchmod(handle, 0o600)
        finally:
            os.close(handle)
        connection = sqlite3.connect(path, timeout=BUSY_TIMEOUT, isolation_level=None, check_same_thread=False)
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA wal_autocheckpoint = 4000")  # pages: 16 MB, because a first start writes much
            _check_version(connection, path)
        except BaseException:
            connection.close()
            raise
    except (sqlite3.Error, OSError) as error:
        raise unusable(directory, error) from None
    return connection


def check(connection: sqlite3.Connection, directory: Path) -> None:
    """Check the whole database for damage. Takes 30 ms for 20,000 resources.

    Raises:
        ConfigurationError: the database is damaged.
    """
    try:
        found = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    except sqlite3.Error as error:
        raise unusable(directory, error) from None
    if found != "ok":
        raise _damaged(directory / FILE, str(found).replace("\n", " "))


def unusable(directory: Path, error: Exception) -> ConfigurationError:
    """Convert an error of SQLite or of the system into a sentence for the user."""
    path = directory / FILE
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return _damaged(path, str(error))
    reason = (error.strerror or str(error)) if isinstance(error, OSError) else str(error)
    return ConfigurationError(
        f"the state directory {directory} cannot be used: {reason}; choose another with --state-dir"
    )


def _check_version(connection: sqlite3.Connection, path: Path) -> None:
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version > VERSION:
        raise ConfigurationError(
            f"the state database {path} has version {version}, but this bus-core knows version {VERSION}: "
            "install the bus-core that wrote it, or choose another state directory with --state-dir"
        )


def _damaged(path: Path, detail: str) -> ConfigurationError:
    return ConfigurationError(
        f"the state database {path} is damaged ({detail}): stop every bus that uses it, restore it from a backup or "
        "move it away. The manifests restore their resources; the assets of channels that were deleted meanwhile stay"
    )


def sync_directory(directory: Path) -> None:
    """Flush the names of new files to the disk, if the system can do that."""
    with contextlib.suppress(OSError):
        handle = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
