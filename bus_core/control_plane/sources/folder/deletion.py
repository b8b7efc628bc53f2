"""Source: decides when a resource that is missing from the folder counts as deleted."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from pathlib import Path

from bus_core.control_plane.sources.folder.scan import Reading
from bus_core.model.resources import ResourceKey
from bus_core.telemetry import get_logger

SECOND_LOOK = 0.3
"""How long a resource must be missing, in seconds, before that counts as its deletion: an editor may be saving."""

log = get_logger(__name__)


class Deletions:
    """The resources that are missing, and since when. Used by one thread.

    Args:
        folder: named in the log.
        allow_empty: whether a folder without any manifest means that everything is deleted.
    """

    def __init__(self, folder: Path, *, allow_empty: bool) -> None:
        self._folder = folder
        self._allow_empty = allow_empty
        self._missing: dict[ResourceKey, float] = {}
        self._kept: dict[str, float] = {}

    @property
    def waiting(self) -> bool:
        """Whether a second look is due."""
        return bool(self._missing) or any(since < math.inf for since in self._kept.values())

    def due(self, reading: Reading, missing: Mapping[ResourceKey, str]) -> list[ResourceKey]:
        """Which of the missing resources count as deleted now.

        Args:
            reading: the look that did not find them.
            missing: the manifest file that each came from.
        """
        distrust = self.distrust(reading)
        now = time.monotonic()
        before, self._missing = self._missing, {}
        if distrust:
            broken = {error.path for error in reading.errors}
            kept = sum(origin not in broken for origin in missing.values())
            self._tell_of_kept(distrust if kept else "", kept, now)
            return []
        self._tell_of_kept("", 0, now)
        due = []
        for key in missing:
            since = before.get(key, now)
            if now - since < SECOND_LOOK:
                self._missing[key] = since
            else:
                due.append(key)
        return due

    def distrust(self, reading: Reading) -> str:
        """Why what is missing does not count as deleted; empty if it does."""
        if not reading.exists:
            return (
                "the folder of manifests is gone; what it held stays: bring it back "
                "(an empty folder deletes what is left only with --allow-empty)"
            )
        if reading.errors:
            return "resources are gone from the folder; they stay while a file in it is broken: repair the file"
        if not reading.resources and not self._allow_empty:
            return "the folder holds no manifest any more; what it held stays: only --allow-empty deletes everything"
        return ""

    def _tell_of_kept(self, reason: str, count: int, now: float) -> None:
        """Log the reason once, and not before a second look agrees; then nothing until there is another one or none."""
        self._kept = {reason: self._kept.get(reason, now)} if reason else {}
        if reason and now - self._kept[reason] >= SECOND_LOOK:
            self._kept[reason] = math.inf
            log.warning(reason, folder=str(self._folder), resources=count)
