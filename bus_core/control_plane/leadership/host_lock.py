"""Leadership: the host lock says which worker of a host competes for the Leases of the bus."""

from __future__ import annotations

import fcntl
import os
import socket
import tempfile
import uuid


class HostLock:
    """A record lock (POSIX) on an unnamed file. Create it before the workers are forked.

    Such a lock belongs to a process, not to the open file that all workers inherit. The kernel frees it when its holder
    dies. A suspended holder (SIGSTOP) keeps it; then another host takes the Leases when they expire.

    Attributes:
        identity: the host's name in a Lease. Its workers share it, so the next worker renews the Lease of a dead one.
    """

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile(prefix="bus-host-")  # noqa: SIM115  # closed by the end of the process
        self.identity = f"{socket.gethostname()}_{os.getpid()}_{uuid.uuid4().hex[:8]}"

    def acquire(self) -> bool:
        """Try to take the lock. Never waits. Returns whether this process holds it now."""
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):  # EAGAIN or EACCES: another process holds it
            return False
        return True

    def release(self) -> None:
        """Let another worker of the host compete. Idempotent."""
        fcntl.lockf(self._file, fcntl.LOCK_UN)
