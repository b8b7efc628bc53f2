"""Leadership: one Lease object. It is read, taken, renewed and given up; each write names the version it read."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from typing import Any

from bus_core.control_plane.cluster import LEASES, ApiError, ClusterClient


class LeaseRecord:
    """One Lease object, as this process sees it. Used by one thread.

    Args:
        name: the name of the Lease.
        identity: the name of this host in the Lease.
        duration: seconds after which a record without renewal expires.
        clock: seconds, monotonic.
    """

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
        """Take or renew the Lease if it is free or ours. Returns whether it is ours now.

        Raises:
            ApiError: the API server refused, or did not answer.
        """
        for _ in range(2):  # the second time with the version that another process has written meanwhile
            if self._object is None or self.holder != self._identity:
                self._read()
            if self.holder not in ("", self._identity) and self._clock() < self._seen_at + self._lasts:
                return False
            if self._write(self._identity):
                return True
        return False

    def give_up(self) -> None:
        """Release the Lease if it is ours. Raises as `hold` does."""
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
        """Write the record if its version is still the one that was read; else return False."""
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
            self._object = None  # another process was faster: read the object again
            self.holder = ""
            return False
        return True
