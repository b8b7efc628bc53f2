"""Source: the resources as the watches report them, with our own writes that no watch has shown yet."""

from __future__ import annotations

import threading

from bus_core.model.resources import Resource, ResourceKey


class SeenResources:
    """Thread-safe. Watches call `put` and `remove`, writes call `wrote`; both call the other methods."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards both; nothing else is called while it is held
        self._now: dict[ResourceKey, Resource] = {}
        self._written: dict[str, _Written] = {}  # by uid

    def put(self, resource: Resource) -> None:
        """Store a resource that a watch reports."""
        with self._lock:
            self._now[resource.key] = resource
            written = self._written.get(resource.uid)
            if written is not None and resource.metadata.resource_version not in written.versions:
                del self._written[resource.uid]  # the watch reports our write, or a later one

    def remove(self, key: ResourceKey) -> None:
        """Remove a resource whose deletion a watch reports."""
        with self._lock:
            gone = self._now.pop(key, None)
            if gone is not None:
                self._written.pop(gone.uid, None)

    def wrote(self, before: Resource, after: Resource) -> None:
        """Store the result of our own write, which changed `before` into `after`."""
        with self._lock:
            now = self._now.get(before.key)
            if now is None or now.uid != before.uid:
                return  # the watch has reported its deletion meanwhile
            version = before.metadata.resource_version
            known = self._written.get(before.uid)
            ours = known is not None and known.now.metadata.resource_version == version
            versions = known.versions if known is not None and ours else set()
            self._written[before.uid] = _Written({*versions, version}, after)

    def newest(self, resource: Resource) -> Resource:
        """The version that our own writes made of this one, if the watch has not reported it yet."""
        with self._lock:
            written = self._written.get(resource.uid)
        if written is None or resource.metadata.resource_version not in written.versions:
            return resource
        return written.now

    def get(self, key: ResourceKey) -> Resource | None:
        with self._lock:
            return self._now.get(key)

    def resource_keys(self) -> list[ResourceKey]:
        with self._lock:
            return list(self._now)

    def __len__(self) -> int:
        """The number of stored resources."""
        with self._lock:
            return len(self._now) + len(self._written)


class _Written:
    """The result `now` of our own writes to the earlier `versions`."""

    __slots__ = ("now", "versions")

    def __init__(self, versions: set[str], now: Resource) -> None:
        self.versions = versions
        self.now = now
