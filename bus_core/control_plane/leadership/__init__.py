"""Leadership: for each bus and role, one process at a time calls the leader's hooks and writes conditions."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Protocol

from bus_core.model.references import BusReference
from bus_core.model.resources import Role


class Leadership(Protocol):
    """The leadership of one process, for one bus and all roles of the process. Every method is thread-safe."""

    def start(self, bus: BusReference, roles: Collection[Role], on_gain: Callable[[Role], None]) -> None:
        """Start to compete; returns at once. Calls `on_gain` for each gained role, on any thread."""

    def held(self, role: Role) -> bool:
        """Whether this process leads the role now. Cheap enough to call before every leader hook."""

    def problems(self) -> list[str]:
        """Why there may be no leader, one sentence per problem; empty if there is no problem."""

    def release(self) -> None:
        """Give up all roles and stop competing, so that another process can lead at once. Idempotent."""


class Always:
    """The leadership of a single process: it always leads."""

    def start(self, bus: BusReference, roles: Collection[Role], on_gain: Callable[[Role], None]) -> None:
        for role in roles:
            on_gain(role)

    def held(self, role: Role) -> bool:
        return True

    def problems(self) -> list[str]:
        return []

    def release(self) -> None:
        """Do nothing: there is no other process."""


ALWAYS = Always()
