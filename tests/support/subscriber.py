"""A subscriber: a real HTTP server on loopback that keeps what it got."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Request:
    """One request that a subscriber got."""

    host: str
    headers: Mapping[str, str]
    body: bytes
    at: float


@dataclass
class Answer:
    """What a subscriber answers."""

    status: int = 204
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


class _Server(ThreadingHTTPServer):
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away in the middle is what many tests are about."""


class Subscriber:
    """A real HTTP server on loopback that keeps what it got. `behave` decides the answer, and may be replaced."""

    def __init__(self, behave: Callable[[Request], Answer] | None = None) -> None:
        self.requests: list[Request] = []
        self.behave = behave or (lambda _: Answer())
        self._server = _Server(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def url(self, name: str = "subscriber") -> str:
        return f"http://{name}.localhost:{self.port}/"

    def bodies(self, name: str | None = None) -> list[bytes]:
        return [request.body for request in list(self.requests) if name is None or request.host.split(".")[0] == name]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        owner = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length") or 0))
                headers = {name.lower(): value for name, value in self.headers.items()}
                request = Request(headers.get("host", ""), headers, body, time.monotonic())
                owner.requests.append(request)
                answer = owner.behave(request)
                self.send_response(answer.status)
                for name, value in answer.headers.items():
                    self.send_header(name, value)
                if answer.status not in (204, 304):
                    self.send_header("content-length", str(len(answer.body)))
                self.end_headers()
                self.wfile.write(answer.body)

            def log_message(self, *_: Any) -> None:
                """A test's output is for what failed."""

        return Handler


@contextlib.contextmanager
def subscriber(behave: Callable[[Request], Answer] | None = None) -> Iterator[Subscriber]:
    server = Subscriber(behave)
    try:
        yield server
    finally:
        server.close()
