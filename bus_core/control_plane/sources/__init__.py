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
    """A resource as it is now, or None when it was deleted and has no finalizer left."""

    key: ResourceKey
    resource: Resource | None


OnChange = Callable[[Change], None]


class Source(Protocol):
    """Lists and watches the four kinds, and writes what a bus may write. Every method is thread-safe.

    What is written comes back through `on_change`, in every process that watches the same source. A write that meets a
    newer version of the resource, or a source that does not answer, raises `TemporaryError`: reconcile again. One that
    the source does not allow raises `ForbiddenError`.
    """

    def run(self, on_change: OnChange, stop: threading.Event) -> None:
        """Report every resource once, then set `synced`, then report changes until `stop` is set. Blocks.

        `on_change` is called by one thread at a time, and must return quickly and write nothing to the source.
        """

    @property
    def synced(self) -> threading.Event:
        """Set once everything that exists has been reported."""

    def problems(self) -> list[str]:
        """What keeps the source from seeing everything at the moment, a sentence each; empty when nothing does."""

    def add_finalizer(self, resource: Resource, finalizer: str) -> None:
        """Keep the resource from vanishing before `remove_finalizer`. Idempotent."""

    def remove_finalizer(self, resource: Resource, finalizer: str) -> None:
        """Let go of the resource; if it is deleted and this was the last finalizer, it vanishes. Idempotent."""

    def rejections(self) -> list[str]:
        """Why the source no longer takes requests from this process, a sentence each; empty when it does.

        The resources may change then, and this process does not see it: it is not ready.
        """

    def write_conditions(
        self,
        resource: Resource,
        conditions: Sequence[Condition],
        *,
        provisioned_parameters: ResolvedParameters | None = None,
    ) -> None:
        """Merge conditions into the status of this very resource (by uid) and set `observedGeneration`.

        Nothing is written when nothing changes, or when the resource is gone or another one has taken its name.

        Args:
            provisioned_parameters: of a channel that was just provisioned; None leaves the status as it is.
        """

    def ensure_reachable(self, resource: Resource) -> Sequence[Condition]:
        """Make a channel or a bus reachable by name, and say if it is: `Serviceable`, for a channel `Routeable` too.

        In a cluster Services do that. Without one, a sender who reaches the process reaches its channels: reason
        `Local`. Never raises: the conditions say what goes wrong.
        """

    def remove_reachability(self, channel: Channel) -> None:
        """Remove what `ensure_reachable` made for a channel that is going. Never raises."""

    def record_event(self, resource: Resource, reason: str, message: str, *, warning: bool = False) -> None:
        """Say something about the resource where its owner will look. Never raises."""
