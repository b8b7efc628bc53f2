"""A proxy in front of the API server that answers as it is told to: for the days on which the real one is unwell."""

from __future__ import annotations

import contextlib
import http.client
import socket
import ssl
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal

Mood = Literal["well", "500", "429", "410", "closing"]


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A watch whose client went away."""


class Proxy:
    """Forwards everything, unless it is told not to.

    Attributes:
        mood: what happens to requests from now on: `500` or `429` (Retry-After: 3) to all; `410` to each watch;
            `closing`: each watch ends at once.
        requests: the moment (monotonic), method and path of each.
    """

    def __init__(self, port: int) -> None:
        self.mood: Mood = "well"
        self.requests: list[tuple[float, str, str]] = []
        self._port = port
        self._streams: set[http.client.HTTPSConnection] = set()
        self._server = _Server(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def turn(self, mood: Mood) -> None:
        """From now on answer so; watches under way are cut."""
        self.mood = mood
        for connection in list(self._streams):
            with contextlib.suppress(OSError):  # it ends by itself this moment
                if connection.sock is not None:
                    connection.sock.shutdown(socket.SHUT_RDWR)

    def reads(self, kind: str, since: float) -> int:
        """Lists and watches of a kind since a moment."""
        return sum(
            at >= since and method == "GET" and path.split("?")[0].endswith(f"/{kind}")
            for at, method, path in list(self.requests)
        )

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        owner = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_GET(self) -> None:
                owner.requests.append((time.monotonic(), self.command, self.path))
                is_watch = "watch=true" in self.path
                length = int(self.headers.get("content-length") or 0)
                body = self.rfile.read(length) if length else None
                if owner.mood == "500":
                    self.refuse(500, {})
                elif owner.mood == "429":
                    self.refuse(429, {"Retry-After": "3"})
                elif owner.mood == "410" and is_watch:
                    self.refuse(410, {})
                elif owner.mood == "closing" and is_watch:
                    self.answer(200, b"", {})
                else:
                    self.forward(body)

            do_POST = do_PUT = do_PATCH = do_DELETE = do_GET

            def refuse(self, status: int, headers: dict[str, str]) -> None:
                text = f'{{"kind": "Status", "status": "Failure", "message": "unwell: {status}", "code": {status}}}'
                self.answer(status, text.encode(), headers)

            def answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def forward(self, body: bytes | None) -> None:
                context = ssl.create_default_context()
                context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
                connection = http.client.HTTPSConnection("127.0.0.1", owner._port, context=context, timeout=90)
                owner._streams.add(connection)
                try:
                    kept = {name: value for name, value in self.headers.items() if name.lower() != "host"}
                    connection.request(self.command, self.path, body, kept)
                    response = connection.getresponse()
                    self.send_response(response.status)
                    self.send_header("content-type", response.getheader("content-type") or "application/json")
                    self.send_header("connection", "close")
                    self.end_headers()
                    self.close_connection = True
                    while piece := response.read1(65536):
                        self.wfile.write(piece)
                except OSError:
                    self.close_connection = True
                finally:
                    owner._streams.discard(connection)
                    connection.close()

            def log_message(self, *_: Any) -> None:
                """A test's output is for what failed."""

        return Handler


def allowed(seconds: float, requests_a_try: int, schedule: tuple[int, ...], skip: int = 0) -> int:
    """How many requests a back-off allows within so many seconds."""
    at, tries, index = 0.0, 1, skip
    while at + schedule[min(index, len(schedule) - 1)] <= seconds:
        at += schedule[min(index, len(schedule) - 1)]
        index += 1
        tries += 1
    return tries * requests_a_try
