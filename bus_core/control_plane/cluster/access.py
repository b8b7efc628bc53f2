"""Cluster: how a process reaches the API server. A kubeconfig, an address, or the credentials of the pod."""

from __future__ import annotations

import functools
import os

from bus_core.control_plane.cluster.circuit_breaker import CircuitBreaker
from bus_core.control_plane.cluster.client import ClusterClient
from bus_core.control_plane.cluster.credentials import TOKEN, Credentials, in_cluster
from bus_core.control_plane.cluster.transport import PoolTransport

__all__ = ["TOKEN", "connect", "in_cluster", "shared_client"]


def connect(master_url: str = "", kubeconfig: str = "") -> ClusterClient:
    """A client for the cluster that is named, or else for the one that this process runs in.

    Args:
        master_url: the API server's address; goes before the one in `kubeconfig`.
        kubeconfig: the path of a kubeconfig file; its current context counts.

    Raises:
        ConfigurationError: neither is given outside a cluster, or the file cannot be used.
    """
    credentials = Credentials(master_url, kubeconfig)
    breaker = CircuitBreaker(credentials.host)
    return ClusterClient(PoolTransport(credentials, breaker), credentials.host)


def shared_client(master_url: str = "", kubeconfig: str = "") -> ClusterClient:
    """The one client of this process for a cluster; a process that was forked gets its own.

    Callers share connections, credentials and the circuit breaker. See `connect` for arguments and errors.
    """
    return _client_of(os.getpid(), master_url, kubeconfig)


@functools.cache
def _client_of(_pid: int, master_url: str, kubeconfig: str) -> ClusterClient:
    return connect(master_url, kubeconfig)
