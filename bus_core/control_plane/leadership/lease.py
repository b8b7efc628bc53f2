"""Leadership in a cluster: one Lease for each bus and role (coordination.k8s.io/v1).

Time is only ever compared with this process's own monotonic clock. A leader counts from the moment before it asked for
a renewal; a candidate counts from when it first saw a record. So no clock of another machine matters, and a process
that was stopped finds its lease over by itself.
"""

from __future__ import annotations

import datetime as dt
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Collection
from typing import Any

from bus_core.control_plane.cluster import LEASES, ApiError, ClusterClient
from bus_core.model.references import BusReference
from bus_core.model.resources import Role
from bus_core.telemetry import get_logger

DURATION = 10.0
"""Seconds after which a record that nobody renews is over."""

DEADLINE = 0.7
"""The part of that after whose last renewal a leader no longer leads; well before others may."""

RELEASE_WAIT = 1.5
"""Seconds that a release waits for the API server; a Lease that could not be given back runs out."""

RETRY = 0.1
"""The part of that between two looks at the record, by leader and candidate alike."""

log = get_logger(__name__)


class LeaseLock:
    """A `Leadership` by Leases.

    Args:
        namespace: where the Leases are.
        duration: seconds after which a record that nobody renews is over; whole ones.
        identity: of this process among all that compete; made up if not given.
    """

    def __init__(
        self,
        client: ClusterClient,
        namespace: str,
        *,
        duration: float = DURATION,
        identity: str = "",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._namespace = namespace
        self._duration = float(round(duration))
        self._identity = identity or f"{socket.gethostname()}_{os.getpid()}_{uuid.uuid4().hex[:8]}"
        self._clock = clock
        self._until: dict[Role, float] = {}
        self._problems: dict[Role, str] = {}
        self._released = threading.Event()
        self._threads: list[threading.Thread] = []

    def start(self, bus: BusReference, roles: Collection[Role], on_gain: Callable[[Role], None]) -> None:
        for role in roles:
            kind = "bus" if bus.namespace else "clusterbus"
            name = f"{kind}-{bus.name}-{role}"
            record = _Record(self._client, self._namespace, name, self._identity, self._duration, self._clock)
            thread = threading.Thread(
                target=self._compete, args=(role, record, on_gain), name=f"lease {role}", daemon=True
            )
            self._threads.append(thread)
            thread.start()

    def held(self, role: Role) -> bool:
        return not self._released.is_set() and self._clock() < self._until.get(role, 0.0)

    def problems(self) -> list[str]:
        return list(self._problems.values())

    def release(self) -> None:
        self._released.set()
        end = time.monotonic() + RELEASE_WAIT
        for thread in self._threads:
            thread.join(max(end - time.monotonic(), 0.0))

    def _compete(self, role: Role, record: _Record, on_gain: Callable[[Role], None]) -> None:
        while not self._released.is_set():
            asked = self._clock()
            try:
                leads = record.hold()
            except ApiError as error:
                self._complain(role, str(error))
            else:
                self._problems.pop(role, None)
                before = self.held(role)
                if leads:
                    self._until[role] = asked + DEADLINE * self._duration
                    if not before:
                        on_gain(role)
                elif self._until.pop(role, None) is not None:
                    log.warning("no longer leading", role=role, leader=record.holder)
            self._released.wait(RETRY * self._duration)
        if self._until.pop(role, None) is not None:
            try:
                record.give_up()
            except ApiError as error:
                log.info("the lease was not given back and will run out", role=role, detail=str(error))

    def _complain(self, role: Role, text: str) -> None:
        if self._problems.get(role) != text:
            log.warning("the lease cannot be read or renewed", role=role, detail=text)
        self._problems[role] = text


class _Record:
    """One Lease object, as this process sees it. For one thread."""

    def __init__(
        self,
        client: ClusterClient,
        namespace: str,
        name: str,
        identity: str,
        duration: float,
        clock: Callable[[], float],
    ) -> None:
        self.holder = ""
        self._client = client
        self._namespace = namespace
        self._name = name
        self._identity = identity
        self._duration = duration
        self._clock = clock
        self._object: dict[str, Any] | None = None
        self._seen: tuple[Any, ...] = ()
        self._seen_at = 0.0

    def hold(self) -> bool:
        """Take the lease or renew it, if it is free or ours; whether it is ours now."""
        for _ in range(2):  # the second time with what somebody else has written meanwhile
            if self._object is None or self.holder != self._identity:
                self._read()
            if self.holder not in ("", self._identity) and self._clock() < self._seen_at + self._lasts:
                return False
            if self._write(self._identity):
                return True
        return False

    def give_up(self) -> None:
        if self._object is not None and self.holder == self._identity:
            self._write("")

    @property
    def _lasts(self) -> float:
        spec = (self._object or {}).get("spec") or {}
        return float(spec.get("leaseDurationSeconds") or self._duration)

    def _read(self) -> None:
        try:
            self._take(self._client.get(LEASES.path(self._namespace, self._name)))
        except ApiError as error:
            if error.status != 404:
                raise
            self._object, self.holder = None, ""

    def _take(self, lease: dict[str, Any]) -> None:
        spec = lease.get("spec") or {}
        self._object, self.holder = lease, spec.get("holderIdentity") or ""
        seen = (self.holder, spec.get("renewTime"), spec.get("leaseTransitions"))
        if seen != self._seen:
            self._seen, self._seen_at = seen, self._clock()

    def _write(self, holder: str) -> bool:
        """Write the record on the version that was read; False when somebody else was faster."""
        now = dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        lease = self._object or {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": self._name, "namespace": self._namespace},
        }
        spec = dict(lease.get("spec") or {})
        if holder and self.holder != holder:
            spec |= {"acquireTime": now, "leaseTransitions": int(spec.get("leaseTransitions") or 0) + 1}
        spec |= {"holderIdentity": holder, "leaseDurationSeconds": round(self._duration), "renewTime": now}
        wanted = {**lease, "spec": spec}
        try:
            if self._object is None:
                self._take(self._client.create(LEASES.path(self._namespace), wanted))
            else:
                self._take(self._client.replace(LEASES.path(self._namespace, self._name), wanted))
        except ApiError as error:
            if error.status not in (404, 409):
                raise
            self._object = None  # somebody else was faster: read what there is
            self.holder = ""
            return False
        return True
