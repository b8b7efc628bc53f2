"""Source: the state directory. It stores for a folder of manifests the data that an API server would store."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sqlite3
import threading
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from bus_core.control_plane.sources.folder import takeover
from bus_core.control_plane.sources.folder.database import FILE, INSERT, check, connect, make_private, unusable
from bus_core.control_plane.sources.folder.objects import Object, object_key
from bus_core.model.errors import ConfigurationError
from bus_core.model.references import BusReference
from bus_core.model.resources import Resource, ResourceKey, from_object
from bus_core.telemetry import get_logger

log = get_logger(__name__)


def default_state_dir(folder: Path, bus: BusReference) -> Path:
    """The default of `--state-dir` for this folder and bus (XDG Base Directory)."""
    home = os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    digest = hashlib.sha256(f"{folder.resolve()}\0{bus}".encode()).hexdigest()[:12]
    return Path(home) / "bus-core" / f"{bus.namespace or 'cluster'}-{bus.name}-{digest}"


@dataclass(frozen=True, slots=True)
class Entry:
    """A stored resource.

    Attributes:
        object: in the form of an API server's answer.
        origin: its manifest file; empty if it was made in memory.
        digest: the digest of its manifest (see `manifest_digest`).
    """

    object: Object
    origin: str
    digest: str


@dataclass(slots=True)
class Changes:
    """The changes of other transactions.

    Attributes:
        resources: new and changed resources, each with the number of its change, in this order.
        present: every stored key if one may have been removed, else None.
        damaged: keys whose row cannot be read.
        upto: the number of the last change.
    """

    resources: list[tuple[ResourceKey, Resource, int]]
    present: set[ResourceKey] | None
    damaged: list[ResourceKey]
    upto: int


class StateDirectory:
    """Reads and writes the stored resources. Several threads and processes may use it.

    The database is opened at the first use in a process, never before a fork.

    Args:
        path: created for this user only if it does not exist.
        folder: the watched folder. It must not contain `path`: a bus never writes into the user's manifests.

    Raises:
        ConfigurationError: `path` is inside the folder, or its database cannot be created, read or written.
    """

    def __init__(self, path: Path, folder: Path) -> None:
        inside = path.resolve()
        if folder.resolve() == inside or folder.resolve() in inside.parents:
            raise ConfigurationError(
                f"the state directory {path} is inside the manifests {folder}; choose another with --state-dir"
            )
        self.path = path
        self._lock = threading.RLock()  # guards the connection, and the four attributes below it
        self._connection: sqlite3.Connection | None = None
        self._file = (0, 0)  # device and inode of the database that is open
        self._data_version = -1
        self._synchronous = ""
        with self.exclusive() as connection:
            check(connection, path)
        self.close()

    @contextlib.contextmanager
    def exclusive(self) -> Iterator[sqlite3.Connection]:
        """A context in which no other thread of this process uses the state.

        Raises:
            ConfigurationError: the database cannot be used.
        """
        with self._lock:
            if self._connection is None:
                self._connection = self._open()
            yield self._connection

    @contextlib.contextmanager
    def transaction(self, *, durable: bool) -> Iterator[sqlite3.Connection]:
        """A context in which no other thread or process changes the state. All of its changes are stored, or none.

        Args:
            durable: whether the committed changes must survive a power failure. If not, they only survive the death of
                this process.

        Raises:
            ConfigurationError: the database cannot be used.
            sqlite3.Error: the database cannot be written now: the disk is full, or another process writes for too long.
        """
        with self.exclusive() as connection:
            mode = "FULL" if durable else "NORMAL"
            if mode != self._synchronous:
                connection.execute(f"PRAGMA synchronous = {mode}")
                self._synchronous = mode
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                with contextlib.suppress(sqlite3.Error):
                    if connection.in_transaction:
                        connection.execute("ROLLBACK")
                raise

    def read(self, key: ResourceKey) -> Entry | None:
        """The stored resource, or None if it is missing or its row is damaged."""
        with self.exclusive() as connection:
            row = connection.execute(
                "SELECT object, origin, digest FROM resources WHERE kind = ? AND namespace = ? AND name = ?",
                (key.kind, key.namespace, key.name),
            ).fetchone()
        if row is None:
            return None
        try:
            found = json.loads(row[0])
            if object_key(found) != key or not found["metadata"]["uid"]:
                return None
        except (ValueError, KeyError, TypeError, AttributeError):
            return None  # `changes` has logged it
        return Entry(found, row[1], row[2])

    def write(self, key: ResourceKey, entry: Entry) -> int:
        """Store a resource under the next resourceVersion, or remove it if it is deleted and has no finalizer left.

        Call it within a transaction. Returns the number of this change; 0 if the resource was removed.
        """
        with self.exclusive() as connection:
            metadata = entry.object["metadata"]
            deleted = bool(metadata.get("deletionTimestamp"))
            if deleted and not metadata.get("finalizers"):
                connection.execute(
                    "DELETE FROM resources WHERE kind = ? AND namespace = ? AND name = ?",
                    (key.kind, key.namespace, key.name),
                )
                return 0
            metadata["resourceVersion"] = str(int(metadata.get("resourceVersion") or 0) + 1)
            text = json.dumps(entry.object, ensure_ascii=False, separators=(",", ":"))
            row = (key.kind, key.namespace, key.name, entry.origin, entry.digest, deleted, text)
            return connection.execute(INSERT, row).lastrowid or 0

    def changed(self) -> bool:
        """Whether another process has written since `changes` was called. Takes 10 µs."""
        with self.exclusive() as connection:
            return _data_version(connection) != self._data_version

    def replaced(self) -> bool:
        """Whether the database file was removed or replaced. This process keeps using the opened file until it ends."""
        with self._lock:
            return self._connection is not None and self._file != _identity(self.path / FILE)

    def changes(self, since: int, known: Collection[ResourceKey]) -> Changes:
        """All resources whose change has a number above `since`.

        Args:
            since: 0 for every resource.
            known: the keys that the caller knows, to find out whether a resource was removed.
        """
        with self.exclusive() as connection:
            self._data_version = _data_version(connection)
            connection.execute("BEGIN")  # the three queries see the same state
            try:
                found = Changes([], None, [], since)
                for kind, namespace, name, change, text in connection.execute(
                    "SELECT kind, namespace, name, change, object FROM resources WHERE change > ? ORDER BY change",
                    (since,),
                ):
                    key = ResourceKey(kind, namespace, name)
                    found.upto = change
                    resource = self._resource(key, text)
                    if resource is None:
                        found.damaged.append(key)
                    else:
                        found.resources.append((key, resource, change))
                count = connection.execute("SELECT count(*) FROM resources").fetchone()[0]
                told = {*(key for key, _, _ in found.resources), *found.damaged}
                if count != len(known) + sum(key not in known for key in told):
                    rows = connection.execute("SELECT kind, namespace, name FROM resources")
                    found.present = {ResourceKey(kind, namespace, name) for kind, namespace, name in rows}
                return found
            finally:
                connection.execute("COMMIT")

    def close(self) -> None:
        """Close the database. The next use opens it again."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None
                self._synchronous = ""

    def _resource(self, key: ResourceKey, text: str) -> Resource | None:
        try:
            resource = from_object(json.loads(text))
            if resource.key != key:
                raise ValueError(f"it holds {resource.key}")
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            # One damaged row must not affect the others; its manifest restores the resource.
            log.error(
                "skipped a stored resource that cannot be read",
                resource=str(key),
                path=str(self.path / FILE),
                detail=f"{type(error).__name__}: {error}",
            )
            return None
        return resource

    def _open(self) -> sqlite3.Connection:
        try:
            make_private(self.path)
        except OSError as error:
            raise unusable(self.path, error) from None
        connection = connect(self.path)
        try:
            takeover.prepare(connection, self.path)
        except (sqlite3.Error, OSError) as error:
            connection.close()
            raise unusable(self.path, error) from None
        except BaseException:
            connection.close()
            raise
        self._file = _identity(self.path / FILE)
        self._data_version = -1
        return connection


def _identity(path: Path) -> tuple[int, int]:
    try:
        found = path.stat()
    except OSError:
        return (0, 0)
    return found.st_dev, found.st_ino


def _data_version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA data_version").fetchone()[0])
