"""Leadership: among the processes of one machine, by a file lock for each role."""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Callable, Collection
from pathlib import Path
from typing import IO

from bus_core.model.references import BusReference
from bus_core.model.resources import Role


class FileLock:
    """A `Leadership` by `flock`. `start` opens the files, after the fork: a lock belongs to the open file, so workers
    that share a file opened before the fork would all hold its lock.

    Args:
        directory: the directory of the lock files; each bus has its own.
        poll: seconds between two tries to get a role that another process holds.
    """

    def __init__(self, directory: Path, *, poll: float = 0.2) -> None:
        self._directory = directory
        self._poll = poll
        self._held: dict[Role, IO[str]] = {}
        self._released = threading.Event()
        self._lock = threading.Lock()

    def start(self, bus: BusReference, roles: Collection[Role], on_gain: Callable[[Role], None]) -> None:
        self._directory.mkdir(parents=True, exist_ok=True)
        files: dict[Role, IO[str]] = {role: (self._directory / f"{role}.lock").open("a+") for role in roles}
        self._compete(files, on_gain)
        if files:
            threading.Thread(target=self._wait, args=(files, on_gain), name="leadership", daemon=True).start()

    def held(self, role: Role) -> bool:
        return role in self._held

    def problems(self) -> list[str]:
        return []

    def release(self) -> None:
        self._released.set()
        with self._lock:
            files, self._held = self._held, {}
        for file in files.values():
            file.close()

    def _wait(self, files: dict[Role, IO[str]], on_gain: Callable[[Role], None]) -> None:
        while files and not self._released.wait(self._poll):
            self._compete(files, on_gain)
        for file in files.values():
            file.close()

    def _compete(self, files: dict[Role, IO[str]], on_gain: Callable[[Role], None]) -> None:
        for role, file in list(files.items()):
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            del files[role]
            file.truncate(0)
            file.write(f"{os.getpid()}\n")  # for people who look
            file.flush()
            with self._lock:
                if self._released.is_set():
                    file.close()
                    return
                self._held[role] = file
            on_gain(role)
