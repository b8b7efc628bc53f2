"""The folder source: a folder of manifests, watched, with a state directory in place of an API server's memory."""

from __future__ import annotations

import copy
import datetime as dt
import math
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import watchfiles

from bus_core.control_plane.crds.validation import changed_immutable
from bus_core.control_plane.sources import Change, OnChange
from bus_core.control_plane.sources.folder.manifests import Document, Folder, read_folder
from bus_core.control_plane.sources.folder.state import Entry, Object, StateDirectory, default_state_dir
from bus_core.model.conditions import Condition, merge_conditions
from bus_core.model.errors import TemporaryError
from bus_core.model.parameters import ResolvedParameters
from bus_core.model.references import BusReference
from bus_core.model.resources import API_VERSION, Channel, Resource, ResourceKey, from_object, parameters_to_object
from bus_core.telemetry import get_logger

SECOND_LOOK = 0.3
"""How long a resource must be missing, in seconds, before that counts as its deletion: an editor may be saving."""

_TICK_MS = 250
_RESCAN = 1.0

log = get_logger(__name__)

_Signature = tuple[tuple[str, int, int, int], ...]


class ManifestSource:
    """A `Source` that reads a folder. See `bus_core.control_plane.sources.Source` for its methods.

    The folder may be edited at any time. A file that is broken keeps what it last held; a resource that is missing is
    deleted only when the folder exists, every file in it is good, and a second look agrees.

    Args:
        folder: the manifests; it may come into being later.
        bus: whose state is kept.
        state_dir: by default one below `$XDG_STATE_HOME/bus-core/` for this folder and bus.
        allow_empty: whether a folder without any manifest means that everything is deleted.
        extra: further objects, such as a Bus made in memory.

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
        self._allow_empty = allow_empty
        self._extra = [Document(Path(), data, {(): 0}) for data in extra]
        self._on_change: OnChange | None = None
        self._reporting = threading.RLock()
        self._reported: dict[ResourceKey, str] = {}
        self._scanned: Folder | None = None
        self._signature: _Signature | None = None
        self._missing: dict[ResourceKey, float] = {}
        self._kept: dict[str, float] = {}
        self._complaints: frozenset[str] = frozenset()
        self._trouble = ""
        self._last_events: dict[ResourceKey, dict[str, str]] = {}  # the message by reason

    def run(self, on_change: OnChange, stop: threading.Event) -> None:
        self._on_change = on_change
        while not self._look_safely() and not stop.wait(_TICK_MS / 1000):
            continue
        self.synced.set()
        looked = time.monotonic()
        while not stop.is_set():
            paths = [path for path in (self.folder, self._state.resources) if path.is_dir()]
            for changes in _watch(paths, stop):
                # The slow look beside the watch is for what no watch reports: links that are swapped far away.
                if changes or self._missing or self._trouble or time.monotonic() - looked >= _RESCAN:
                    self._look_safely()
                    looked = time.monotonic()
                if paths != [path for path in (self.folder, self._state.resources) if path.is_dir()]:
                    break

    def add_finalizer(self, resource: Resource, finalizer: str) -> None:
        def add(data: Object) -> bool:
            finalizers = data["metadata"].setdefault("finalizers", [])
            if finalizer in finalizers:
                return False
            finalizers.append(finalizer)
            return True

        if finalizer not in resource.metadata.finalizers and not self._change(resource, add):
            raise TemporaryError(f"{resource.key} has changed meanwhile")

    def remove_finalizer(self, resource: Resource, finalizer: str) -> None:
        def remove(data: Object) -> bool:
            finalizers = data["metadata"].get("finalizers") or []
            if finalizer not in finalizers:
                return False
            finalizers.remove(finalizer)
            return True

        self._change(resource, remove)

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
        stored = None if provisioned_parameters is None else parameters_to_object(provisioned_parameters)
        known = provisioned_parameters in (None, resource.provisioned_parameters)
        if known and merged == resource.conditions and resource.observed_generation == generation:
            return  # the caller's version says it already; if it is stale, a newer one is on its way to the caller

        def merge(data: Object) -> bool:
            status = data.setdefault("status", {})
            old = [Condition.from_object(item) for item in status.get("conditions", ())]
            new = merge_conditions(old, conditions, now)
            same = stored in (None, status.get("provisionedParameters"))
            if same and list(new) == old and status.get("observedGeneration") == generation:
                return False
            if stored is not None:
                status["provisionedParameters"] = stored
            status["conditions"] = [condition.to_object() for condition in new]
            status["observedGeneration"] = generation
            return True

        self._change(resource, merge)

    def ensure_reachable(self, resource: Resource) -> Sequence[Condition]:
        kinds = ("Serviceable", "Routeable") if isinstance(resource, Channel) else ("Serviceable",)
        return [Condition(kind, "True", "Local") for kind in kinds]

    def remove_reachability(self, channel: Channel) -> None:
        """Nothing was made."""

    def problems(self) -> list[str]:
        # A broken file is a complaint of its own, and what it held before stays.
        return [self._trouble] if self._trouble else []

    def record_event(self, resource: Resource, reason: str, message: str, *, warning: bool = False) -> None:
        last = self._last_events.setdefault(resource.key, {})
        if last.get(reason) == message and warning:
            return
        last[reason] = message
        say = log.warning if warning else log.info
        say(message, resource=str(resource.key), reason=reason)

    def _change(self, resource: Resource, change: Callable[[Object], bool]) -> bool:
        """Change the stored resource; False when it is gone or another one has taken its name."""
        key = resource.key
        with self._state.transaction():
            entry = self._state.read(key)
            if entry is None or entry.object["metadata"]["uid"] != resource.uid:
                return False
            data = copy.deepcopy(entry.object)
            if change(data):
                self._store(key, Entry(data, entry.origin))
        with self._reporting:  # of this one alone: to look at all for each write would take minutes with a thousand
            self._tell(key, self._state.read(key))
        return True

    def _store(self, key: ResourceKey, entry: Entry) -> None:
        metadata = entry.object["metadata"]
        if metadata.get("deletionTimestamp") and not metadata.get("finalizers"):
            self._state.remove(key)
        else:
            self._state.write(key, entry)

    def _look_safely(self) -> bool:
        """Look; False when that was not possible: a subfolder went away meanwhile, the disk is full, …"""
        try:
            self._look()
        except Exception as error:
            self._signature = None
            trouble = f"the manifests in {self.folder} cannot be taken in: {error}"
            if trouble != self._trouble:
                log.warning(trouble, exc_info=not isinstance(error, OSError))
            self._trouble = trouble
            return False
        self._trouble = ""
        return True

    def _look(self) -> None:
        """Bring the state to what the folder says, and report what has changed."""
        signature = self._sign()
        if self._scanned is None or signature != self._signature or self._missing:
            self._scanned, self._signature = read_folder(self.folder), signature
        folder = self._scanned
        with self._state.transaction():
            complaints = [str(error) for error in folder.errors]
            wanted = {document.key: document for document in (*folder.documents, *self._extra)}
            stored = self._state.read_all()
            for key, document in wanted.items():
                complaint = self._take_in(key, document, stored.get(key))
                if complaint:
                    complaints.append(complaint)
            self._delete_missing(folder, [key for key in stored if key not in wanted], stored)
        for complaint in sorted(set(complaints) - self._complaints):
            log.warning("a manifest cannot be used; what it held before stays", detail=complaint)
        self._complaints = frozenset(complaints)
        self._report()

    def _take_in(self, key: ResourceKey, document: Document, entry: Entry | None) -> str:
        """Store a manifest that is new or changed; the complaint if it may not change so."""
        data = document.data
        metadata = data["metadata"]
        spec = data.get("spec") or {}
        origin = "" if document in self._extra else str(document.path)
        about = {name: metadata[name] for name in ("labels", "annotations") if metadata.get(name)}
        if entry is None:
            fresh: Object = {
                "apiVersion": data["apiVersion"],
                "kind": data["kind"],
                "metadata": {"name": key.name, "namespace": key.namespace, "uid": str(uuid.uuid4()), "generation": 1}
                | about,
                "spec": spec,
            }
            self._state.write(key, Entry(fresh, origin))
            return ""
        old = entry.object
        if old["metadata"].get("deletionTimestamp"):
            return ""  # its old self goes first; then it is taken in as a new one
        same = old.get("spec") == spec and all(
            old["metadata"].get(name) == about.get(name) for name in ("labels", "annotations")
        )
        if same and entry.origin == origin:
            return ""
        problem = changed_immutable(old, {**data, "spec": spec})
        if problem is not None:
            return str(document.error(problem))
        changed = copy.deepcopy(old)
        if changed.get("spec") != spec:
            changed["spec"] = spec
            changed["metadata"]["generation"] = int(old["metadata"].get("generation") or 1) + 1
        for name in ("labels", "annotations"):
            changed["metadata"].pop(name, None)
        changed["metadata"] |= about
        self._state.write(key, Entry(changed, origin))
        return ""

    def _delete_missing(
        self, folder: Folder, missing: Iterable[ResourceKey], stored: Mapping[ResourceKey, Entry]
    ) -> None:
        distrust = self._distrust(folder)
        now = time.monotonic()
        before, self._missing = self._missing, {}
        broken, kept = {error.path for error in folder.errors}, 0
        for key in missing:
            data, origin = stored[key].object, stored[key].origin
            if data["metadata"].get("deletionTimestamp"):
                continue
            if distrust:
                kept += origin not in broken
                continue
            since = before.get(key, now)
            if now - since < SECOND_LOOK:
                self._missing[key] = since
                continue
            data = copy.deepcopy(data)
            data["metadata"]["deletionTimestamp"] = dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
            self._store(key, Entry(data, origin))
            log.info("gone from the folder: it is deleted", resource=str(key), folder=str(self.folder), file=origin)
        self._tell_of_kept(distrust if kept else "", kept, now)

    def _distrust(self, folder: Folder) -> str:
        """Why what is missing does not count as deleted; empty if it does."""
        if not folder.exists:
            return (
                "the folder of manifests is gone; what it held stays: bring it back "
                "(an empty folder deletes what is left only with --allow-empty)"
            )
        if folder.errors:
            return "resources are gone from the folder; they stay while a file in it is broken: repair the file"
        if not folder.documents and not self._allow_empty:
            return "the folder holds no manifest any more; what it held stays: only --allow-empty deletes everything"
        return ""

    def _tell_of_kept(self, reason: str, count: int, now: float) -> None:
        """Say it once, and not before a second look agrees; then nothing until there is another reason or none."""
        self._kept = {reason: self._kept.get(reason, now)} if reason else {}
        if reason and now - self._kept[reason] >= SECOND_LOOK:
            self._kept[reason] = math.inf
            log.warning(reason, folder=str(self.folder), resources=count)

    def _report(self) -> None:
        """Tell of every stored resource that differs from what was told last."""
        with self._reporting:
            stored = self._state.read_all()
            for key in [key for key in self._reported if key not in stored]:
                self._tell(key, None)
            for key, entry in stored.items():
                self._tell(key, entry)

    def _tell(self, key: ResourceKey, entry: Entry | None) -> None:
        if self._on_change is None:
            return
        if entry is None:
            self._last_events.pop(key, None)
            if self._reported.pop(key, None) is not None:
                self._on_change(Change(key, None))
            return
        metadata = entry.object["metadata"]
        version = f"{metadata['uid']} {metadata['resourceVersion']}"
        if self._reported.get(key) != version:
            self._reported[key] = version
            self._on_change(Change(key, from_object(entry.object)))

    def _sign(self) -> _Signature:
        """Tells cheaply whether any file has changed; follows links, so that a swapped one counts."""
        found = []
        for path in sorted(self.folder.rglob("*")) if self.folder.is_dir() else ():
            try:
                stat = path.stat()
            except OSError:
                continue
            found.append((str(path), stat.st_mtime_ns, stat.st_size, stat.st_ino))
        return tuple(found)


def _watch(paths: Sequence[Path], stop: threading.Event) -> Iterator[bool]:
    """Whether anything has changed below the paths, at least every tick, until `stop` is set."""
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
            yield bool(changes)
    except OSError as error:  # a folder went away this moment, or the system has no watch left to give
        log.debug("no watch; the slow look goes on", detail=str(error))
        stop.wait(_TICK_MS / 1000)
        yield False


def bus_object(bus: BusReference, driver: str) -> Object:
    """A Bus made in memory, for `bus run --driver X` on manifests that have none."""
    metadata = {"name": bus.name} if bus.is_cluster_bus else {"name": bus.name, "namespace": bus.namespace}
    kind = "ClusterBus" if bus.is_cluster_bus else "Bus"
    return {
        "apiVersion": API_VERSION,
        "kind": kind,
        "metadata": metadata,
        "spec": {"driver": driver},
    }
