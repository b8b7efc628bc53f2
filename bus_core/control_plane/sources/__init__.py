"""Where resources come from: the one protocol behind which a folder of manifests and a cluster look the same."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from bus_core.model.conditions import Condition
from bus_core.model.resources import Channel, Resource, ResourceKey


@dataclass(frozen=True, slots=True)
class Change:
    """A resource as it is now, or None when it is gone for good (deleted and free of finalizers)."""

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

    def write_conditions(self, resource: Resource, conditions: Sequence[Condition]) -> None:
        """Merge conditions into the status of this very resource (by uid) and set `observedGeneration`.

        Nothing is written when nothing changes, or when the resource is gone or another one has taken its name.
        """

    def reach(self, resource: Resource) -> Sequence[Condition]:
        """Make a channel or a bus reachable by name, and say if it is: `Serviceable`, for a channel `Routeable` too.

        In a cluster Services do that; without one, whoever reaches the process reaches its channels: reason `Local`.
        Never raises: what goes wrong is in the conditions.
        """

    def unreach(self, channel: Channel) -> None:
        """Take back what `reach` made for a channel that is going. Never raises."""

    def record_event(self, resource: Resource, reason: str, message: str, *, warning: bool = False) -> None:
        """Say something about the resource where its owner will look. Never raises."""
