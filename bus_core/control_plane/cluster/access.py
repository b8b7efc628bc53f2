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
    """A client for the given cluster, or else for the cluster of this pod.

    Args:
        master_url: the API server's address; overrides the address in `kubeconfig`.
        kubeconfig: the path of a kubeconfig file. Its current context is used.

    Raises:
        ConfigurationError: neither is given and this is not a pod, or the file cannot be used.
    """
    credentials = Credentials(master_url, kubeconfig)
    breaker = CircuitBreaker(credentials.host)
    return ClusterClient(PoolTransport(credentials, breaker), credentials.host)


def shared_client(master_url: str = "", kubeconfig: str = "") -> ClusterClient:
    """The only client of this process for a cluster. A forked process gets its own.

    Callers share connections, credentials and the circuit breaker. See `connect` for arguments and errors.
    """
    return _client_of(os.getpid(), master_url, kubeconfig)


@functools.cache
def _client_of(_pid: int, master_url: str, kubeconfig: str) -> ClusterClient:
    return connect(master_url, kubeconfig)
