"""Cluster: the credentials that sign a request, read again after a rotation. Sole importer of kubernetes."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from urllib3 import PoolManager

from bus_core.model.errors import ConfigurationError
from bus_core.telemetry import get_logger

TOKEN = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")
"""The token of the pod's account; the kubelet replaces it well before it expires."""

RELOAD = 10.0
"""Seconds at least between two readings of a kubeconfig because of a 401: it may run a credential plug-in."""

Headers = dict[str, str]

log = get_logger(__name__)


class Credentials:
    """An API server's address, TLS and credentials, from a kubeconfig, an address, or the pod. Thread-safe.

    A token file is read again when it changes. Everything else of a kubeconfig is read again after a 401: a token in
    it, and what a credential plug-in gives. A plug-in's token that expires is renewed before that.

    Args:
        master_url: the API server's address; goes before the one in `kubeconfig`.
        kubeconfig: the path of a kubeconfig file; its current context counts.

    Raises:
        ConfigurationError: neither is given outside a cluster, or the file cannot be used.
    """

    def __init__(self, master_url: str, kubeconfig: str) -> None:
        self._master_url = master_url
        self._kubeconfig = kubeconfig
        self._configuration = self._load()
        self._lock = threading.Lock()  # guards the configuration and all below
        self._reloaded_at = -RELOAD
        self._token = _TokenFile(path) if (path := self._token_path()) is not None else None
        self.host: str = self._configuration.host

    def pools(self) -> PoolManager:
        """Connections as the configuration asks: authority, client certificate, proxy."""
        from kubernetes.client import ApiClient  # a third of a second: only for those who use a cluster

        found: PoolManager = ApiClient(self._configuration).rest_client.pool_manager
        return found

    def headers(self) -> Headers:
        """What signs a request now. Blocks while a credential plug-in runs."""
        with self._lock:
            return self._headers()

    def renew(self, rejected: Mapping[str, str]) -> bool:
        """Look for other credentials after a 401; whether there are any.

        Args:
            rejected: the headers that the API server answered 401 to.
        """
        with self._lock:
            if self._token is not None:
                self._token.forget()
            if self._headers() != rejected:
                return True
            now = time.monotonic()
            if not self._kubeconfig or now - self._reloaded_at < RELOAD:
                return False
            self._reloaded_at = now
            try:
                self._configuration = self._load()
                path = self._token_path()
            except ConfigurationError as error:  # it is being written at this moment, or the plug-in failed
                log.warning("the kubeconfig cannot be read again", detail=str(error))
                return False
            self._token = _TokenFile(path) if path is not None else None
            return self._headers() != rejected

    def _headers(self) -> Headers:
        auths: Mapping[str, Mapping[str, str]] = self._configuration.auth_settings()  # renews what a plug-in gave
        signed = {auth["key"]: auth["value"] for auth in auths.values()}
        token = self._token.read() if self._token is not None else ""
        return signed | ({"authorization": f"Bearer {token}"} if token else {})

    def _load(self) -> Any:
        from kubernetes.client import Configuration
        from kubernetes.config import ConfigException, load_incluster_config, load_kube_config

        kubeconfig = self._kubeconfig
        configuration = Configuration()
        try:
            if kubeconfig:
                if not Path(kubeconfig).is_file():
                    raise ConfigurationError(f"--kubeconfig {kubeconfig}: there is no such file")
                load_kube_config(kubeconfig, client_configuration=configuration, persist_config=False)
            elif not self._master_url:
                load_incluster_config(configuration)
        except ConfigException as error:
            where = f"--kubeconfig {kubeconfig}" if kubeconfig else "not in a cluster (give --kubeconfig or --master)"
            raise ConfigurationError(f"{where}: {error}") from None
        except ConfigurationError:
            raise
        except Exception as error:  # the loader lets errors of YAML, base64 and file access through
            raise ConfigurationError(f"--kubeconfig {kubeconfig} cannot be used: {error}") from None
        if self._master_url:
            configuration.host = self._master_url.rstrip("/")
        configuration.connection_pool_maxsize = 16
        return configuration

    def _token_path(self) -> Path | None:
        """The file that holds the token, if one does."""
        if self._kubeconfig:
            return _token_path(Path(self._kubeconfig))
        return None if self._master_url else TOKEN


class _TokenFile:
    """A token in a file that somebody else replaces. For one thread at a time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._signature: tuple[int, ...] = ()
        self._token = ""

    def read(self) -> str:
        """The token; the last good one while the file cannot be read."""
        try:
            stat = self._path.stat()  # follows links: a projected volume swaps one
            signature = (stat.st_mtime_ns, stat.st_size, stat.st_ino, stat.st_dev)
            if signature != self._signature:
                self._token = self._path.read_text(encoding="utf-8").strip() or self._token
                self._signature = signature
        except (OSError, UnicodeDecodeError) as error:
            log.debug("a token file cannot be read", path=str(self._path), detail=str(error))
        return self._token

    def forget(self) -> None:
        """Read the file at the next `read` even if it looks unchanged."""
        self._signature = ()


def in_cluster() -> bool:
    """Whether this process runs in a pod with credentials of its own."""
    return "KUBERNETES_SERVICE_HOST" in os.environ and TOKEN.exists()


def _token_path(kubeconfig: Path) -> Path | None:
    """The `tokenFile` of the current context's user; a relative path starts at the kubeconfig's folder.

    Raises:
        ConfigurationError: the kubeconfig cannot be read.
    """
    try:
        data = yaml.safe_load(kubeconfig.read_text(encoding="utf-8"))
        contexts = {item["name"]: item["context"] for item in data.get("contexts") or ()}
        users = {item["name"]: item["user"] for item in data.get("users") or ()}
        user = users.get((contexts.get(data.get("current-context")) or {}).get("user")) or {}
        file = user.get("tokenFile")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, yaml.YAMLError) as error:
        raise ConfigurationError(f"--kubeconfig {kubeconfig} cannot be used: {error}") from None
    return kubeconfig.parent / file if file else None
