"""Source: writes the monitor's changes. One transaction combines the changes of several threads."""

from __future__ import annotations

import datetime as dt
import sqlite3
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from bus_core.control_plane.sources.folder.objects import Object
from bus_core.control_plane.sources.folder.report import Reporter
from bus_core.control_plane.sources.folder.state import StateDirectory
from bus_core.model.conditions import Condition, merge_conditions
from bus_core.model.errors import ConfigurationError, TemporaryError
from bus_core.model.parameters import ResolvedParameters
from bus_core.model.resources import Resource, parameters_to_object


class Edit(Protocol):
    """A change of one stored object."""

    @property
    def durable(self) -> bool:
        """Whether the written edit must survive a power failure."""

    def apply(self, data: Object) -> bool:
        """Change the object in place. Returns whether it differs now."""


@dataclass(frozen=True, slots=True)
class AddFinalizer:
    """Durable: without the finalizer, the assets that a driver is about to create would never be removed."""

    finalizer: str
    durable: bool = True

    def apply(self, data: Object) -> bool:
        finalizers = data["metadata"].setdefault("finalizers", [])
        if self.finalizer in finalizers:
            return False
        finalizers.append(self.finalizer)
        return True


@dataclass(frozen=True, slots=True)
class RemoveFinalizer:
    """Durable, so that a torn-down resource is not torn down again."""

    finalizer: str
    durable: bool = True

    def apply(self, data: Object) -> bool:
        finalizers = data["metadata"].get("finalizers") or []
        if self.finalizer not in finalizers:
            return False
        finalizers.remove(self.finalizer)
        return True


@dataclass(frozen=True, slots=True)
class MergeConditions:
    """Durable if it marks a channel as provisioned. The other conditions are computed again at each start."""

    conditions: Sequence[Condition]
    generation: int
    now: dt.datetime
    provisioned_parameters: ResolvedParameters | None = None

    @property
    def durable(self) -> bool:
        return any(condition.type == "Provisioned" for condition in self.conditions)

    def apply(self, data: Object) -> bool:
        status = data.setdefault("status", {})
        old = [Condition.from_object(item) for item in status.get("conditions", ())]
        new = merge_conditions(old, self.conditions, self.now)
        given = self.provisioned_parameters
        stored = status.get("provisionedParameters") if given is None else parameters_to_object(given)
        same = stored == status.get("provisionedParameters")
        if same and list(new) == old and status.get("observedGeneration") == self.generation:
            return False
        if stored is not None:
            status["provisionedParameters"] = stored
        status["conditions"] = [condition.to_object() for condition in new]
        status["observedGeneration"] = self.generation
        return True


@dataclass(slots=True)
class _Write:
    """An edit that waits for its transaction, and later its result."""

    resource: Resource
    edit: Edit
    done: bool = False
    found: bool = False
    failure: str = field(default="")


class GroupCommit:
    """Writes edits. Thread-safe; a call returns when its edit is committed.

    Edits that arrive during a commit share the next transaction, because a transaction mostly waits for the disk. The
    first thread that gets the state commits for all waiting threads.
    """

    def __init__(self, state: StateDirectory, reporter: Reporter) -> None:
        self._state = state
        self._reporter = reporter
        self._waiting: list[_Write] = []
        self._committing = False
        self._waiting_lock = threading.Condition()  # guards both; no other lock is taken inside

    def apply(self, resource: Resource, edit: Edit) -> bool:
        """Change the stored resource, and report it. False if it has vanished or was replaced by another of its name.

        Raises:
            TemporaryError: the state cannot be written now.
        """
        write = _Write(resource, edit)
        with self._waiting_lock:
            self._waiting.append(write)
            while self._committing and not write.done:
                self._waiting_lock.wait()
            if not write.done:
                self._committing = True
                writes, self._waiting = self._waiting, []
        if not write.done:
            try:
                self._commit(writes)
            finally:
                with self._waiting_lock:
                    self._committing = False
                    for one in writes:
                        one.done = True
                    self._waiting_lock.notify_all()
        if write.failure:
            raise TemporaryError(write.failure)
        return write.found

    def _commit(self, writes: Sequence[_Write]) -> None:
        changed: list[tuple[_Write, Object, int]] = []
        try:
            with self._state.exclusive():
                with self._state.transaction(durable=any(write.edit.durable for write in writes)):
                    for write in writes:
                        self._write(write, changed)
                for write, data, change in changed:
                    self._reporter.tell(write.resource.key, data, change)
        except (sqlite3.Error, ConfigurationError) as error:
            for write in writes:
                write.failure = f"the state in {self._state.path} cannot be written: {error}"
        except BaseException as error:
            for write in writes:
                write.failure = f"the state in {self._state.path} was not written: {type(error).__name__}: {error}"
            raise

    def _write(self, write: _Write, changed: list[tuple[_Write, Object, int]]) -> None:
        key = write.resource.key
        entry = self._state.read(key)
        if entry is None or entry.object["metadata"]["uid"] != write.resource.uid:
            return
        write.found = True
        if write.edit.apply(entry.object):
            changed.append((write, entry.object, self._state.write(key, entry)))
