"""Source: the protocol of all sources. A folder of manifests and a cluster look the same behind it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from bus_core.model.conditions import Condition
from bus_core.model.parameters import ResolvedParameters
from bus_core.model.resources import Channel, Resource, ResourceKey


@dataclass(frozen=True, slots=True)
class Change:
    """A current resource, or None if it was deleted and has no finalizer left."""

    key: ResourceKey
    resource: Resource | None


OnChange = Callable[[Change], None]


class Source(Protocol):
    """Lists and watches the four kinds, and writes status and finalizers. Every method is thread-safe.

    `on_change` reports each write in every process that watches the same source. A write raises `TemporaryError` if
    the resource has a newer version or the source does not answer: reconcile again. It raises `ForbiddenError` if the
    source does not allow it.
    """

    def run(self, on_change: OnChange, stop: threading.Event) -> None:
        """Report every resource once, then set `synced`, then report changes until `stop` is set. Blocks.

        One thread at a time calls `on_change`, which must return quickly and must not write to the source.
        """

    @property
    def synced(self) -> threading.Event:
        """Set after every existing resource has been reported."""

    def problems(self) -> list[str]:
        """Why the source may miss changes now, one sentence per problem; empty if it does not."""

    def add_finalizer(self, resource: Resource, finalizer: str) -> None:
        """Add our finalizer: a deleted resource then stays until `remove_finalizer`. Idempotent."""

    def remove_finalizer(self, resource: Resource, finalizer: str) -> None:
        """Remove our finalizer. A deleted resource without finalizers vanishes. Idempotent."""

    def rejections(self) -> list[str]:
        """Why the source rejects the requests of this process, one sentence per problem; empty if it accepts them.

        With such a problem the process is not ready, because it does not see changes.
        """

    def write_conditions(
        self,
        resource: Resource,
        conditions: Sequence[Condition],
        *,
        provisioned_parameters: ResolvedParameters | None = None,
    ) -> None:
        """Merge conditions into the status of this very resource (by uid) and set `observedGeneration`.

        Writes nothing if nothing changes, or if the resource has vanished or was replaced by another of its name.

        Args:
            provisioned_parameters: the parameters of a channel that was just provisioned; None: no change.
        """

    def ensure_reachable(self, resource: Resource) -> Sequence[Condition]:
        """Make a channel or a bus reachable by name. Returns the condition `Serviceable`, and `Routeable` of a channel.

        In a cluster this creates Services. Without a cluster, senders reach channels through the process itself: reason
        `Local`. Never raises: the conditions contain the problem.
        """

    def remove_reachability(self, channel: Channel) -> None:
        """Remove the Service of a channel that is being deleted. Never raises."""

    def record_event(self, resource: Resource, reason: str, message: str, *, warning: bool = False) -> None:
        """Record an Event about the resource: in the cluster, or in the log. Never raises."""
