"""Cluster: requests over pooled connections, behind the circuit breaker, signed, and repeated after a 401."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import urllib3
from urllib3.exceptions import ConnectTimeoutError, NewConnectionError, ProtocolError, ProxyError, SSLError

from bus_core.control_plane.cluster.circuit_breaker import CircuitBreaker
from bus_core.control_plane.cluster.client import detail_of
from bus_core.control_plane.cluster.credentials import Credentials

UNREACHABLE = (NewConnectionError, ConnectTimeoutError, ProxyError, ProtocolError, SSLError)
"""The errors of urllib3 for a failed connection, or one that was closed before an answer began."""


class PoolTransport:
    """A `Transport` on urllib3's pools. Thread-safe."""

    def __init__(self, credentials: Credentials, breaker: CircuitBreaker) -> None:
        self._credentials = credentials
        self._breaker = breaker
        self._pools = credentials.pools()

    def __call__(
        self, method: str, path: str, headers: Mapping[str, str], body: bytes | None, connect: float, read: float
    ) -> Any:
        """Send one request.

        Raises:
            UnreachableError: the connection failed.
            Exception: any error of urllib3, ssl or a credential plug-in.
        """
        timeout = urllib3.Timeout(connect=connect, read=read)
        signature = self._credentials.headers()
        response = self._send(method, path, {**headers, **signature}, body, timeout)
        if response.status == 401 and self._credentials.renew(signature):
            response.close()
            response = self._send(method, path, {**headers, **self._credentials.headers()}, body, timeout)
        return response

    def _send(
        self, method: str, path: str, headers: Mapping[str, str], body: bytes | None, timeout: urllib3.Timeout
    ) -> urllib3.BaseHTTPResponse:
        self._breaker.admit()
        try:
            response = self._pools.request(
                method,
                self._credentials.host + path,
                body=body,
                headers=headers,
                timeout=timeout,
                preload_content=False,
                retries=False,
                redirect=False,
            )
        except UNREACHABLE as error:
            raise self._breaker.failed(detail_of(error)) from None
        except BaseException:
            self._breaker.connected()
            raise
        self._breaker.connected()
        return response
