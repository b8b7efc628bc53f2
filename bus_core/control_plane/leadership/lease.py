"""Leadership: in a cluster, by one Lease for each bus and role (coordination.k8s.io/v1).

Only the worker that holds its host's host lock competes; the other workers make no requests. Durations are measured
with the monotonic clock of this process: a leader measures from just before its request for a renewal, a candidate from
its first sight of a record. So the clocks of other machines do not matter, and a process that was suspended sees that
its own Lease expired.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Collection

from bus_core.control_plane.cluster import ApiError, ClusterClient
from bus_core.control_plane.leadership.host_lock import HostLock
from bus_core.control_plane.leadership.lease_record import LeaseRecord
from bus_core.model.references import BusReference
from bus_core.model.resources import Role
from bus_core.telemetry import get_logger

DURATION = 10.0
"""Seconds after which a record without renewal expires."""

DEADLINE = 0.7
"""A leader stops leading this part of the duration after its last renewal, well before other hosts may lead."""

RELEASE_WAIT = 1.5
"""Seconds that a release waits for the API server. A Lease that could not be released expires."""

RETRY = 0.1
"""The part of the duration between two readings of the record, by leaders and candidates."""

BACKOFF = (1, 1, 1, 1, 1, 1, 1, 2, 3, 5, 8, 13, 21)
"""The pause while the API server fails, in units of `RETRY`. A leader tries as often as before until its Lease expires.
With the default duration there are fourteen tries in the first minute."""

HOST_POLL = 0.2
"""Seconds between two tries for the host lock while another worker of this host holds it."""

HOST = "host"

log = get_logger(__name__)


class LeaseLock:
    """A `Leadership` by Leases.

    Args:
        namespace: the namespace of the Leases.
        duration: whole seconds after which a record without renewal expires.
        host: shared by the workers of one host; by default this process counts as one host.
        identity: the name in the Leases; by default the host's.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        client: ClusterClient,
        namespace: str,
        *,
        duration: float = DURATION,
        host: HostLock | None = None,
        identity: str = "",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._namespace = namespace
        self._duration = float(round(duration))
        self._host = host or HostLock()
        self._identity = identity or self._host.identity
        self._clock = clock
        self._until: dict[Role, float] = {}
        self._problems: dict[str, str] = {}  # by role, or of the host lock
        self._failures = 0
        self._released = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, bus: BusReference, roles: Collection[Role], on_gain: Callable[[Role], None]) -> None:
        kind = "bus" if bus.namespace else "clusterbus"
        records = deque(
            (
                role,
                LeaseRecord(
                    self._client,
                    self._namespace,
                    f"{kind}-{bus.name}-{role}",
                    self._identity,
                    self._duration,
                    self._clock,
                ),
            )
            for role in roles
        )
        self._thread = threading.Thread(target=self._compete, args=(records, on_gain), name="lease", daemon=True)
        self._thread.start()

    def held(self, role: Role) -> bool:
        return not self._released.is_set() and self._clock() < self._until.get(role, 0.0)

    def problems(self) -> list[str]:
        return list(dict.fromkeys(list(self._problems.values())))

    def release(self) -> None:
        self._released.set()
        if self._thread is not None:
            self._thread.join(RELEASE_WAIT)

    def _compete(self, records: deque[tuple[Role, LeaseRecord]], on_gain: Callable[[Role], None]) -> None:
        while not self._released.is_set():
            self._released.wait(self._round(records, on_gain) if self._competes() else HOST_POLL)
        for role, record in records:
            if self._until.pop(role, None) is not None:
                self._give_up(role, record)
        self._host.release()

    def _competes(self) -> bool:
        """Whether this worker competes for its host."""
        try:
            competes = self._host.acquire()
        except OSError as error:
            self._complain(HOST, f"the host lock cannot be taken: {error}", quiet=False)
            return False
        self._problems.pop(HOST, None)
        return competes

    def _round(self, records: deque[tuple[Role, LeaseRecord]], on_gain: Callable[[Role], None]) -> float:
        """Take or renew the Lease of each role. Returns the seconds until the next round."""
        pause = RETRY * self._duration
        for role, record in records:
            try:
                self._hold(role, record, on_gain)
            except ApiError as error:
                self._complain(role, str(error), quiet=error.unreachable)
                if error.status in (0, 429) or error.status >= 500:
                    # The server fails: ask for one Lease per round, in turns.
                    records.rotate(-1)
                    return error.retry_after if error.unreachable else max(self._backoff(), error.retry_after)
            except Exception as error:  # such as a malformed record, a credential plug-in: keep competing
                text = f"{type(error).__name__}: {error}"
                if self._problems.get(role) != text:
                    log.exception("a Lease cannot be read or renewed", role=role)
                self._complain(role, text, quiet=True)
        self._failures = 0
        return pause

    def _hold(self, role: Role, record: LeaseRecord, on_gain: Callable[[Role], None]) -> None:
        asked = self._clock()
        leads = record.hold()
        self._problems.pop(role, None)
        before = self.held(role)
        if leads:
            self._until[role] = asked + DEADLINE * self._duration
            if not before:
                on_gain(role)
        elif self._until.pop(role, None) is not None:
            log.warning("no longer leading", role=role, leader=record.holder)

    def _backoff(self) -> float:
        step = BACKOFF[min(self._failures, len(BACKOFF) - 1)]
        self._failures += 1
        return step * RETRY * self._duration

    def _complain(self, about: str, text: str, *, quiet: bool) -> None:
        if self._problems.get(about) != text and not quiet:
            log.warning("a Lease cannot be read or renewed", about=about, detail=text)
        self._problems[about] = text

    def _give_up(self, role: Role, record: LeaseRecord) -> None:
        try:
            record.give_up()
        except Exception as error:
            log.info("a Lease was not released and will expire", role=role, detail=str(error))
