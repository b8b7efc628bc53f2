"""An API server's double on a real port: checks bearer tokens, counts requests, answers empty lists and watches."""

from __future__ import annotations

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import yaml


class ApiDouble:
    """A server on loopback. `tokens` are those it takes; `requests` are moment, path and status of each."""

    def __init__(self, *tokens: str, port: int = 0) -> None:
        self.tokens = set(tokens)
        self.requests: list[tuple[float, str, int]] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", port), self._handler())
        self._server.daemon_threads = True
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def statuses(self) -> list[int]:
        return [status for _, _, status in list(self.requests)]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        owner = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self.rfile.read(int(self.headers.get("content-length") or 0))
                token = (self.headers.get("authorization") or "").removeprefix("Bearer ")
                status = 200 if token in owner.tokens else 401
                owner.requests.append((time.monotonic(), self.path, status))
                answer: dict[str, Any] = {"message": "Unauthorized", "reason": "Unauthorized"}
                if status == 200:
                    answer = {"items": [], "metadata": {"resourceVersion": "1"}}
                body = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_POST = do_PUT = do_PATCH = do_DELETE = do_GET

            def log_message(self, *_: Any) -> None:
                """A test's output is for what failed."""

        return Handler


def kubeconfig(path: Path, server: str, **user: Any) -> Path:
    """A kubeconfig for one server and one user."""
    data = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": {"server": server}}],
        "users": [{"name": "u", "user": user}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    }
    path.write_text(yaml.safe_dump(data))
    return path
