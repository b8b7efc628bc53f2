"""Host, metrics folder: where the workers of one run share their metrics, and how folders of killed runs go.

A run that is ended by `kill -9` cannot remove its folder. So each run holds a lock on a file in its folder, which the
kernel frees when the last process of the run has ended, and each run removes the folders whose lock is free.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from bus_core.telemetry import get_logger

PREFIX = "bus-metrics-"
LOCK = "lock"

log = get_logger(__name__)


@contextlib.contextmanager
def metrics_folder() -> Iterator[Path]:
    """A new folder, removed at the end, after those of this user whose runs were killed.

    Processes that are forked meanwhile hold its lock too: the folder stays until the last of them has ended.
    """
    _remove_abandoned(Path(tempfile.gettempdir()))
    folder = Path(tempfile.mkdtemp(prefix=PREFIX))
    try:
        # Locked before it has its name: there is no moment at which another run finds the lock free.
        made = folder / f"{LOCK}.new"
        with made.open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            made.rename(folder / LOCK)
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _remove_abandoned(parent: Path) -> None:
    for folder in parent.glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):  # another run removes it too, or the lock is held
            if folder.is_symlink() or folder.stat().st_uid != os.geteuid():
                continue
            with (folder / LOCK).open("r+") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder)
                log.info("the metrics folder of a run that was killed is removed", folder=str(folder))
