"""Leadership: for each bus and role, one process at a time calls the leader's hooks and writes conditions."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Protocol

from bus_core.model.references import BusReference
from bus_core.model.resources import Role


class Leadership(Protocol):
    """One object for one bus and all roles this process plays. Every method is thread-safe."""

    def start(self, bus: BusReference, roles: Collection[Role], on_gain: Callable[[Role], None]) -> None:
        """Begin to compete; returns at once. `on_gain` is called each time a role is gained, from any thread."""

    def held(self, role: Role) -> bool:
        """Whether this process leads the role at this moment. Cheap enough to ask before every leader hook."""

    def problems(self) -> list[str]:
        """Why nobody may be leading, a sentence each; empty when all is well."""

    def release(self) -> None:
        """Give up all roles and stop competing, so that another process leads at once. Idempotent."""


class Always:
    """For a lone process: it leads from the start."""

    def start(self, bus: BusReference, roles: Collection[Role], on_gain: Callable[[Role], None]) -> None:
        for role in roles:
            on_gain(role)

    def held(self, role: Role) -> bool:
        return True

    def problems(self) -> list[str]:
        return []

    def release(self) -> None:
        """Nobody waits for it."""


ALWAYS = Always()
