"""A client for tests: plain requests, and bytes that are sent as they are."""

from __future__ import annotations

import contextlib
import http.client
import socket
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Response:
    status: int
    headers: Mapping[str, str]
    text: str


def request(
    address: str,
    method: str = "POST",
    path: str = "/",
    *,
    host: str | None = None,
    body: bytes | None = b"x",
    **headers: str,
) -> Response:
    """One plain request; underscores in header names stand for dashes."""
    connection = http.client.HTTPConnection(address, timeout=10)
    try:
        connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
        connection.putheader("Host", host if host is not None else address)
        for name, value in headers.items():
            connection.putheader(name.replace("_", "-"), value)
        if body is not None:
            connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body)
        response = connection.getresponse()
        got = {name.lower(): value for name, value in response.getheaders()}
        return Response(response.status, got, response.read().decode(errors="replace"))
    finally:
        connection.close()


def raw(address: str, data: bytes, *, shut: bool = False, timeout: float = 5.0) -> bytes:
    """Send bytes as they are, and read until the other side closes or goes quiet."""
    host, _, port = address.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=timeout) as sock:
        sock.sendall(data)
        if shut:
            sock.shutdown(socket.SHUT_WR)
        answer = b""
        with contextlib.suppress(TimeoutError, ConnectionResetError):
            while chunk := sock.recv(65536):
                answer += chunk
                head, found, rest = answer.partition(b"\r\n\r\n")
                length = next(
                    (
                        int(line.split(b":")[1])
                        for line in head.lower().split(b"\r\n")
                        if line.startswith(b"content-length")
                    ),
                    0,
                )
                if found and len(rest) >= length:
                    break
        return answer
