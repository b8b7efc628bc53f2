"""Source: reports each change of a stored resource to the monitor, once."""

from __future__ import annotations

from bus_core.control_plane.sources import Change, OnChange
from bus_core.control_plane.sources.folder.objects import Object
from bus_core.control_plane.sources.folder.state import StateDirectory
from bus_core.model.resources import Resource, ResourceKey, from_object
from bus_core.telemetry import get_logger

log = get_logger(__name__)


class EventLog:
    """Writes the Events of resources to the log, and a repeated warning only once."""

    def __init__(self) -> None:
        self._last: dict[ResourceKey, dict[str, str]] = {}  # the message by reason

    def __len__(self) -> int:
        return len(self._last)

    def record(self, resource: Resource, reason: str, message: str, *, warning: bool) -> None:
        """See `bus_core.control_plane.sources.Source.record_event`. Thread-safe."""
        if warning:
            last = self._last.setdefault(resource.key, {})
            if last.get(reason) == message:
                return
            last[reason] = message
        say = log.warning if warning else log.info
        say(message, resource=str(resource.key), reason=reason)

    def forget(self, key: ResourceKey) -> None:
        """Forget a resource that has vanished. Another one may take its name."""
        self._last.pop(key, None)


class Reporter:
    """The last reported change of each resource. Thread-safe: it reports while no other thread uses the state.

    So the reports have the order of the transactions, and one thread at a time reports.
    """

    def __init__(self, state: StateDirectory) -> None:
        self._state = state
        self._on_change: OnChange | None = None
        self._seen = 0  # everything up to this change has been reported
        self._reported: dict[ResourceKey, int] = {}  # the change that was reported last
        self._removed = False
        self._damaged: list[ResourceKey] = []
        self.events = EventLog()

    def __len__(self) -> int:
        return len(self._reported)

    def attach(self, on_change: OnChange) -> None:
        """Set the function that gets the reports."""
        self._on_change = on_change

    @property
    def unmerged(self) -> bool:
        """Whether a resource has vanished or cannot be read. A merge may restore it from its manifest."""
        return self._removed or bool(self._damaged)

    def take_unmerged(self) -> list[ResourceKey]:
        """The resources that cannot be read. Resets `unmerged`. Their last reports stay valid."""
        damaged, self._damaged, self._removed = self._damaged, [], False
        return damaged

    def report(self) -> None:
        """Report the changes since the last call."""
        with self._state.exclusive():
            found = self._state.changes(self._seen, self._reported.keys())
            self._damaged += found.damaged
            removed = set() if found.present is None else self._reported.keys() - found.present
            for key in removed:
                self._tell_removed(key)
            for key, resource, change in found.resources:
                if self._reported.get(key) != change:
                    self._reported[key] = change
                    self._emit(Change(key, resource))
            self._seen = found.upto

    def tell(self, key: ResourceKey, data: Object, change: int) -> None:
        """Report one resource that this process has just written. Call before another thread uses the state."""
        metadata = data["metadata"]
        if metadata.get("deletionTimestamp") and not metadata.get("finalizers"):
            self._tell_removed(key)
        elif self._reported.get(key) != change and self._on_change is not None:
            self._reported[key] = change
            self._emit(Change(key, from_object(data)))

    def _tell_removed(self, key: ResourceKey) -> None:
        self.events.forget(key)
        if self._reported.pop(key, None) is not None:
            self._removed = True
            self._emit(Change(key, None))

    def _emit(self, change: Change) -> None:
        if self._on_change is not None:
            self._on_change(change)
