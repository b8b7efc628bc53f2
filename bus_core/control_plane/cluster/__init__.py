"""Cluster: a client of the Kubernetes API. Plain objects in and out, each call bounded in time, one error.

The official client provides credentials and TLS. Its models, informers and retries are not used. Only `credentials.py`
imports it, and only for a cluster, because the import takes a third of a second.
"""

from __future__ import annotations

from bus_core.control_plane.cluster.client import ApiError, ClusterClient, Stream
from bus_core.control_plane.cluster.paths import (
    BUSES,
    CHANNELS,
    CLUSTER_BUSES,
    EVENTS,
    LEASES,
    SERVICES,
    SUBSCRIPTIONS,
    Api,
)

__all__ = [
    "BUSES",
    "CHANNELS",
    "CLUSTER_BUSES",
    "EVENTS",
    "LEASES",
    "SERVICES",
    "SUBSCRIPTIONS",
    "Api",
    "ApiError",
    "ClusterClient",
    "Stream",
]
