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
"""The token of the pod's account. The kubelet replaces it well before it expires."""

RELOAD = 10.0
"""The least seconds between two readings of a kubeconfig after 401 answers. A reading may run a credential plug-in."""

Headers = dict[str, str]

log = get_logger(__name__)


class Credentials:
    """An API server's address, TLS and credentials, from a kubeconfig, an address, or the pod. Thread-safe.

    A changed token file is read again. The rest of a kubeconfig is read again after a 401: a token in it, and the
    credentials of a plug-in. A plug-in's token is renewed before it expires.

    Args:
        master_url: the API server's address; overrides the address in `kubeconfig`.
        kubeconfig: the path of a kubeconfig file. Its current context is used.

    Raises:
        ConfigurationError: neither is given and this is not a pod, or the file cannot be used.
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
        """Create connections with the configured authority, client certificate and proxy."""
        from kubernetes.client import ApiClient  # a third of a second, so only if a cluster is used

        found: PoolManager = ApiClient(self._configuration).rest_client.pool_manager
        return found

    def headers(self) -> Headers:
        """The headers that sign a request now. Blocks while a credential plug-in runs."""
        with self._lock:
            return self._headers()

    def renew(self, rejected: Mapping[str, str]) -> bool:
        """Read the credentials again after a 401. Returns whether they differ from the rejected ones.

        Args:
            rejected: the headers of the request that got 401.
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
            except ConfigurationError as error:  # the file is being written now, or the plug-in failed
                log.warning("the kubeconfig cannot be read again", detail=str(error))
                return False
            self._token = _TokenFile(path) if path is not None else None
            return self._headers() != rejected

    def _headers(self) -> Headers:
        auths: Mapping[str, Mapping[str, str]] = self._configuration.auth_settings()  # renews a plug-in's credentials
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
        except Exception as error:  # the loader raises errors of YAML, base64 and file access
            raise ConfigurationError(f"--kubeconfig {kubeconfig} cannot be used: {error}") from None
        if self._master_url:
            configuration.host = self._master_url.rstrip("/")
        configuration.connection_pool_maxsize = 16
        return configuration

    def _token_path(self) -> Path | None:
        """The file of the token, or None."""
        if self._kubeconfig:
            return _token_path(Path(self._kubeconfig))
        return None if self._master_url else TOKEN


class _TokenFile:
    """A token in a file that another program replaces. One thread at a time may use it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._signature: tuple[int, ...] = ()
        self._token = ""

    def read(self) -> str:
        """The token, or the last valid one if the file cannot be read now."""
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
    """Whether this process runs in a pod with a service account token."""
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
