"""Cluster: calls to the API server. JSON in, JSON out, bounded in time."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol
from urllib.parse import urlencode

from bus_core.control_plane.cluster.circuit_breaker import UnreachableError
from bus_core.model.errors import BusError

CONNECT = 2.0
READ = 3.0
"""The time limit in seconds for a read or write of one object. Short, because a stop waits for running calls."""

LIST_READ = 30.0
"""Seconds without a byte after which a page of a list fails."""

MERGE_PATCH = "application/merge-patch+json"

Object = dict[str, Any]


class ApiError(BusError):
    """The API server refused, or did not answer.

    Args:
        status: the HTTP status code; 0 without an answer.
        message: the server's own sentence, which for 403 names verb and resource.
        reason: the server's word, such as `Expired` or `AlreadyExists`.
        retry_after: seconds until the next useful try, from the server or the circuit breaker; or 0.
        unreachable: the connection failed; the circuit breaker has logged it.
    """

    def __init__(
        self, status: int, message: str, *, reason: str = "", retry_after: float = 0.0, unreachable: bool = False
    ) -> None:
        self.status = status
        self.reason = reason
        self.retry_after = retry_after
        self.unreachable = unreachable
        super().__init__(message)


class _Response(Protocol):
    """The used part of urllib3's response."""

    status: int
    headers: Mapping[str, str]

    @property
    def data(self) -> bytes: ...
    def read1(self, amt: int) -> bytes: ...
    def shutdown(self) -> None: ...
    def close(self) -> None: ...
    def release_conn(self) -> None: ...


class Transport(Protocol):
    """Sends one request and returns the response, body unread. Tests put their own server below this seam."""

    def __call__(
        self, method: str, path: str, headers: Mapping[str, str], body: bytes | None, connect: float, read: float
    ) -> _Response: ...


class Stream:
    """Iterates over the events of a watch. `cut`, from any thread, ends the iteration."""

    def __init__(self, response: _Response) -> None:
        self._response = response

    def __iter__(self) -> Iterator[Object]:
        rest = b""
        try:
            while piece := self._response.read1(65536):
                *lines, rest = (rest + piece).split(b"\n")
                for line in lines:
                    if line.strip():
                        yield json.loads(line)
        except Exception as error:
            # An error of urllib3: the watch was cut, timed out, or broke. The events before it are valid.
            raise ApiError(0, f"the watch broke off: {detail_of(error)}") from None
        finally:
            self._response.close()

    def cut(self) -> None:
        try:
            self._response.shutdown()
        except Exception:
            self._response.close()


class ClusterClient:
    """Calls one API server. Thread-safe. Each method raises only `ApiError`, if the server refuses or does not answer.

    Args:
        transport: sends one request.
        server: the API server's address, for people.
        clock: seconds, monotonic.
    """

    def __init__(self, transport: Transport, server: str = "", *, clock: Callable[[], float] = time.monotonic) -> None:
        self._transport = transport
        self._clock = clock
        self._lock = threading.Lock()  # guards the moment below
        self._rejected_at: float | None = None
        self.server = server

    def rejected_for(self) -> float:
        """Seconds for which this client has got only 401 answers; 0 if the server accepts its requests."""
        with self._lock:
            return 0.0 if self._rejected_at is None else self._clock() - self._rejected_at

    def get(self, path: str, *, read: float = READ, **query: Any) -> Object:
        return self._call("GET", path, query, None, read)

    def create(self, path: str, body: Object) -> Object:
        return self._call("POST", path, {}, body, READ)

    def replace(self, path: str, body: Object, *, read: float = READ) -> Object:
        return self._call("PUT", path, {}, body, read)

    def merge(self, path: str, body: Object) -> Object:
        """A JSON merge patch (RFC 7386). `metadata.resourceVersion` in it limits it to that version."""
        return self._call("PATCH", path, {}, body, READ, MERGE_PATCH)

    def delete(self, path: str, **preconditions: str) -> None:
        body = {"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": preconditions} if preconditions else None
        self._call("DELETE", path, {}, body, READ)

    def watch(self, path: str, *, read: float, **query: Any) -> Stream:
        """Open a watch. It ends after `read` seconds of silence."""
        return Stream(self._open("GET", path, {**query, "watch": "true"}, None, read, ""))

    def _call(
        self, method: str, path: str, query: Mapping[str, Any], body: Object | None, read: float, kind: str = ""
    ) -> Object:
        response = self._open(method, path, query, body, read, kind)
        try:
            data = response.data
            response.release_conn()
            found: Object = json.loads(data) if data else {}
        except ValueError:
            raise ApiError(0, f"{method} {path}: the answer is not JSON") from None
        except Exception as error:
            raise ApiError(0, f"{method} {path}: {detail_of(error)}") from None
        return found

    def _open(
        self, method: str, path: str, query: Mapping[str, Any], body: Object | None, read: float, kind: str
    ) -> _Response:
        target = f"{path}?{urlencode(query)}" if query else path
        headers = {"Accept": "application/json", "User-Agent": "bus-core"}
        if body is not None:
            headers["Content-Type"] = kind or "application/json"
        sent = None if body is None else json.dumps(body).encode()
        try:
            response = self._transport(method, target, headers, sent, CONNECT, read)
        except UnreachableError as error:
            text = f"{self.server} does not answer: {detail_of(error)}"
            raise ApiError(0, text, retry_after=error.retry_after, unreachable=True) from None
        except Exception as error:
            # urllib3, ssl and credential plug-ins have their own errors. For a caller, all mean: no answer.
            raise ApiError(0, f"{self.server} does not answer: {detail_of(error)}") from None
        with self._lock:
            if response.status != 401:
                self._rejected_at = None
            elif self._rejected_at is None:
                self._rejected_at = self._clock()
        if response.status >= 400:
            raise _refusal(method, path, response)
        return response


def _refusal(method: str, path: str, response: _Response) -> ApiError:
    message, reason = f"{method} {path}: {response.status}", ""
    try:
        status = json.loads(response.data)
        message, reason = status.get("message") or message, status.get("reason") or ""
    except Exception:
        response.close()
    else:
        response.release_conn()
    after = response.headers.get("retry-after", "")
    return ApiError(response.status, message, reason=reason, retry_after=float(after) if after.isdigit() else 0.0)


def detail_of(error: Exception) -> str:
    """The innermost reason in one line: urllib3 wraps it in pools, retries and aborted connections."""
    inner: BaseException = error
    while (cause := _cause_of(inner)) is not None:
        inner = cause
    text = str(inner).rpartition(": ")[2] or type(inner).__name__
    return " ".join(text.split())[:300]


def _cause_of(error: BaseException) -> BaseException | None:
    found = [getattr(error, "reason", None), *error.args]
    return next((cause for cause in found if isinstance(cause, BaseException)), None)
