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
"""Seconds for which a resource must be missing before it counts as deleted. An editor may be saving its file."""

log = get_logger(__name__)


class Deletions:
    """The missing resources, and since when. Used by one thread.

    Args:
        folder: for the log.
        allow_empty: whether a folder without manifests deletes every resource.
    """

    def __init__(self, folder: Path, *, allow_empty: bool) -> None:
        self._folder = folder
        self._allow_empty = allow_empty
        self._missing: dict[ResourceKey, float] = {}
        self._kept: dict[str, float] = {}

    @property
    def waiting(self) -> bool:
        """Whether a second scan is due."""
        return bool(self._missing) or any(since < math.inf for since in self._kept.values())

    def due(self, reading: Reading, missing: Mapping[ResourceKey, str]) -> list[ResourceKey]:
        """The missing resources that count as deleted now.

        Args:
            reading: the scan that did not find them.
            missing: the resources, with the manifest file of each.
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
        """Why missing resources do not count as deleted; empty if they do."""
        if not reading.exists:
            return (
                "the folder of manifests is missing; its resources stay: restore the folder "
                "(an empty folder deletes all resources only with --allow-empty)"
            )
        if reading.errors:
            return "resources are missing from the folder; they stay as long as a file in it is broken: repair the file"
        if not reading.resources and not self._allow_empty:
            return "the folder contains no manifest now; its resources stay: only --allow-empty deletes them"
        return ""

    def _tell_of_kept(self, reason: str, count: int, now: float) -> None:
        """Log a reason once, after a second scan has confirmed it. Log again only when the reason changes."""
        self._kept = {reason: self._kept.get(reason, now)} if reason else {}
        if reason and now - self._kept[reason] >= SECOND_LOOK:
            self._kept[reason] = math.inf
            log.warning(reason, folder=str(self._folder), resources=count)
