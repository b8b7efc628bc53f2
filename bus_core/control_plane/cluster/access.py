"""How to reach a cluster: a kubeconfig, an address, or the credentials of the pod. Sole importer of kubernetes."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import urllib3

from bus_core.control_plane.cluster.client import ClusterClient
from bus_core.model.errors import ConfigurationError

TOKEN = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")


def in_cluster() -> bool:
    """Whether this process runs in a pod with credentials of its own."""
    return "KUBERNETES_SERVICE_HOST" in os.environ and TOKEN.exists()


def connect(master_url: str = "", kubeconfig: str = "") -> ClusterClient:
    """A client for the cluster that is named, or else for the one that this process runs in.

    Args:
        master_url: the API server's address; goes before the one in `kubeconfig`.
        kubeconfig: the path of a kubeconfig file; its current context counts.

    Raises:
        ConfigurationError: neither is given outside a cluster, or the file cannot be used.
    """
    from kubernetes.client import ApiClient, Configuration  # a third of a second: only for those who use a cluster
    from kubernetes.config import ConfigException, load_incluster_config, load_kube_config

    configuration = Configuration()
    try:
        if kubeconfig:
            if not Path(kubeconfig).is_file():
                raise ConfigurationError(f"--kubeconfig {kubeconfig}: there is no such file")
            load_kube_config(kubeconfig, client_configuration=configuration, persist_config=False)
        elif not master_url:
            load_incluster_config(configuration)
    except ConfigException as error:
        where = f"--kubeconfig {kubeconfig}" if kubeconfig else "not in a cluster (give --kubeconfig or --master)"
        raise ConfigurationError(f"{where}: {error}") from None
    except ConfigurationError:
        raise
    except Exception as error:  # the loader lets errors of YAML, base64 and file access through
        raise ConfigurationError(f"--kubeconfig {kubeconfig} cannot be used: {error}") from None
    if master_url:
        configuration.host = master_url.rstrip("/")
    configuration.connection_pool_maxsize = 16
    auths: Callable[[], Mapping[str, Any]] = configuration.auth_settings  # renews a token that has rotated
    pools = ApiClient(configuration).rest_client.pool_manager

    def transport(
        method: str, path: str, headers: Mapping[str, str], body: bytes | None, connect: float, read: float
    ) -> Any:
        signed = dict(headers)
        signed |= {auth["key"]: auth["value"] for auth in auths().values()}
        return pools.request(
            method,
            configuration.host + path,
            body=body,
            headers=signed,
            timeout=urllib3.Timeout(connect=connect, read=read),
            preload_content=False,
            retries=False,
            redirect=False,
        )

    return ClusterClient(transport, configuration.host)
