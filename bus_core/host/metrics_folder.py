"""Host, metrics folder: the workers of one run share their metrics in it. A start removes folders of killed runs.

After `kill -9` a run cannot remove its folder. So each run locks a file in its folder, and removes the folders whose
lock is free. The kernel frees a lock when the last process of its run has ended.
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
    """Remove this user's folders of killed runs, then create a folder and remove it at the end.

    Forked processes share the folder's lock, so other runs keep the folder until the last of them has ended.
    """
    _remove_abandoned(Path(tempfile.gettempdir()))
    folder = Path(tempfile.mkdtemp(prefix=PREFIX))
    try:
        # The file is locked before it gets its name, so another run never finds the lock free.
        made = folder / f"{LOCK}.new"
        with made.open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            made.rename(folder / LOCK)
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _remove_abandoned(parent: Path) -> None:
    for folder in parent.glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):  # another run removes the folder now, or holds the lock
            if folder.is_symlink() or folder.stat().st_uid != os.geteuid():
                continue
            with (folder / LOCK).open("r+") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder)
                log.info("removed the metrics folder of a killed run", folder=str(folder))
