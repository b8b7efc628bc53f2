"""Source: watches a folder of manifests, with a state directory in place of an API server's storage."""

from __future__ import annotations

import datetime as dt
import sqlite3
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import watchfiles

from bus_core.control_plane.sources import OnChange
from bus_core.control_plane.sources.folder.deletion import Deletions
from bus_core.control_plane.sources.folder.edits import AddFinalizer, GroupCommit, MergeConditions, RemoveFinalizer
from bus_core.control_plane.sources.folder.merge import Merge
from bus_core.control_plane.sources.folder.objects import Object
from bus_core.control_plane.sources.folder.report import Reporter
from bus_core.control_plane.sources.folder.scan import Scan
from bus_core.control_plane.sources.folder.state import StateDirectory, default_state_dir
from bus_core.model.conditions import Condition, merge_conditions
from bus_core.model.errors import ConfigurationError, TemporaryError
from bus_core.model.parameters import ResolvedParameters
from bus_core.model.references import BusReference
from bus_core.model.resources import API_VERSION, Channel, Resource
from bus_core.telemetry import get_logger

_TICK_MS = 250
_RESCAN = 1.0
_RESCAN_SHARE = 0.02
"""Seconds between two scans without a reported change; longer if scans would take more than this share of the time."""

log = get_logger(__name__)


class ManifestSource:
    """A `Source` that reads a folder. See `bus_core.control_plane.sources.Source` for its methods.

    The folder may be edited at any time. A broken file keeps its last valid resources. A missing resource is deleted
    only if the folder exists, all files in it are valid, and a second scan agrees.

    Args:
        folder: the manifests; it may be created later.
        bus: the bus whose state is kept.
        state_dir: by default a folder below `$XDG_STATE_HOME/bus-core/` for this folder and bus.
        allow_empty: whether a folder without manifests deletes every resource.
        extra: more objects, such as a Bus made in memory.

    Raises:
        ConfigurationError: the state directory cannot be used.
    """

    def __init__(
        self,
        folder: Path,
        bus: BusReference,
        *,
        state_dir: Path | None = None,
        allow_empty: bool = False,
        extra: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        self.folder = folder
        self.synced = threading.Event()
        self._state = StateDirectory(state_dir or default_state_dir(folder, bus), folder)
        self._scan = Scan(folder, extra)
        self._deletions = Deletions(folder, allow_empty=allow_empty)
        self._merge = Merge(self._state, self._scan, self._deletions)
        self._reporter = Reporter(self._state)
        self._writes = GroupCommit(self._state, self._reporter)
        self._trouble = ""
        self._lost = ""
        self._looked = 0.0  # time of the last scan; monotonic seconds

    def run(self, on_change: OnChange, stop: threading.Event) -> None:
        self._reporter.attach(on_change)
        try:
            while not self._look_safely() and not stop.wait(_TICK_MS / 1000):
                continue
            self.synced.set()
            while not stop.is_set():
                self._watch(stop)
        finally:
            self._state.close()

    def add_finalizer(self, resource: Resource, finalizer: str) -> None:
        if finalizer not in resource.metadata.finalizers and not self._writes.apply(resource, AddFinalizer(finalizer)):
            raise TemporaryError(f"{resource.key} has changed meanwhile")

    def remove_finalizer(self, resource: Resource, finalizer: str) -> None:
        self._writes.apply(resource, RemoveFinalizer(finalizer))

    def rejections(self) -> list[str]:
        return []

    def write_conditions(
        self,
        resource: Resource,
        conditions: Sequence[Condition],
        *,
        provisioned_parameters: ResolvedParameters | None = None,
    ) -> None:
        now = dt.datetime.now(dt.UTC)
        merged = merge_conditions(resource.conditions, conditions, now)
        generation = resource.metadata.generation
        known = provisioned_parameters in (None, resource.provisioned_parameters)
        if known and merged == resource.conditions and resource.observed_generation == generation:
            return  # the caller's version has it already; if that is stale, a newer one will be reported
        self._writes.apply(resource, MergeConditions(conditions, generation, now, provisioned_parameters))

    def ensure_reachable(self, resource: Resource) -> Sequence[Condition]:
        kinds = ("Serviceable", "Routeable") if isinstance(resource, Channel) else ("Serviceable",)
        return [Condition(kind, "True", "Local") for kind in kinds]

    def remove_reachability(self, channel: Channel) -> None:
        """Nothing to remove."""

    def problems(self) -> list[str]:
        # A broken file is reported separately, and its last valid resources stay.
        return [text for text in (self._trouble, self._lost) if text]

    def record_event(self, resource: Resource, reason: str, message: str, *, warning: bool = False) -> None:
        self._reporter.events.record(resource, reason, message, warning=warning)

    def _watch(self, stop: threading.Event) -> None:
        """Scan after each change, until `stop` is set or a watched folder appears or vanishes."""
        state = self._state.path.resolve()
        paths = [path for path in (self.folder, state) if path.is_dir()]
        for changes in _changes(paths, stop):
            in_folder = any(not Path(path).is_relative_to(state) for path in changes)
            # The periodic scan finds changes that no watch reports, such as a changed target of a link.
            rest = max(_RESCAN, self._scan.took / _RESCAN_SHARE)
            due = self._deletions.waiting or self._trouble or time.monotonic() - self._looked >= rest
            if in_folder or due or self._reporter.unmerged or self._state.changed():
                self._look_safely(list_files=bool(in_folder or due))
            if paths != [path for path in (self.folder, state) if path.is_dir()]:
                return

    def _look_safely(self, *, list_files: bool = True) -> bool:
        """Scan. False if that fails now: a subfolder has just vanished, the disk is full, …"""
        try:
            self._look(list_files=list_files)
        except Exception as error:
            trouble = f"the manifests in {self.folder} cannot be read: {error}"
            if trouble != self._trouble:
                expected = isinstance(error, OSError | sqlite3.Error | ConfigurationError)
                log.warning(trouble, exc_info=not expected)
            self._trouble = trouble
            return False
        self._trouble = ""
        if self._state.replaced() and not self._lost:
            self._lost = (
                f"the state database in {self._state.path} was removed or replaced while the bus runs; "
                "the bus keeps the old state until it ends: restart the bus"
            )
            log.warning(self._lost)
        return True

    def _look(self, *, list_files: bool) -> None:
        """Report the changes of other processes; update the state from the folder; report the changes."""
        if list_files:
            self._looked = time.monotonic()
        if self._state.changed():
            self._reporter.report()
        if (list_files and (self._scan.changed() or self._deletions.waiting)) or self._reporter.unmerged:
            self._merge.look(self._reporter.take_unmerged())
            self._reporter.report()


def _changes(paths: Sequence[Path], stop: threading.Event) -> Iterator[list[str]]:
    """Yield the changed paths below these folders, at least every tick, until `stop` is set."""
    try:
        for changes in watchfiles.watch(
            *paths,
            watch_filter=None,
            debounce=50,
            step=20,
            stop_event=stop,
            rust_timeout=_TICK_MS,
            yield_on_timeout=True,
            raise_interrupt=False,
        ):
            yield [path for _, path in changes]
    except OSError as error:  # a folder has just vanished, or the system's limit of watches is reached
        log.debug("no watch; the slow look goes on", detail=str(error))
        stop.wait(_TICK_MS / 1000)
        yield []


def bus_object(bus: BusReference, driver: str) -> Object:
    """A Bus made in memory, for `bus run --driver X` on manifests without a Bus."""
    metadata = {"name": bus.name} if bus.is_cluster_bus else {"name": bus.name, "namespace": bus.namespace}
    kind = "ClusterBus" if bus.is_cluster_bus else "Bus"
    return {
        "apiVersion": API_VERSION,
        "kind": kind,
        "metadata": metadata,
        "spec": {"driver": driver},
    }
