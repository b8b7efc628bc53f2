"""Sends the bytes of the refusal table to a server and notes the answers, and whether the application was reached.

`python -m tests.server.refusal_answers` prints the answers of this checkout as JSON.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import socket
import sys
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from bus_core.data_plane.server import ASGIApp, Connections, Limits, bind, serve
from tests.server.refusal_table import REQUESTS

QUIET = 0.4
"""So many seconds without a byte mean that the server waits."""

_KNOWN = (b"host", b"content-length", b"transfer-encoding", b"connection", b"upgrade")
_STATUS = re.compile(rb"HTTP/1\.[01] (\d{3}) ")


class Witness:
    """An application that says which requests reach it."""

    def __init__(self) -> None:
        self.seen: dict[int, list[str]] = {}

    def app_at(self, address: tuple[str, int]) -> ASGIApp:
        return self._answer

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Nothing to start."""

    async def stop(self, connections: Connections) -> None:
        connections.close_idle()

    async def _answer(self, scope: Any, receive: Any, send: Any) -> None:
        body, more = b"", True
        while more:
            event = await receive()
            if event["type"] == "http.disconnect":
                return
            body += event.get("body", b"")
            more = event.get("more_body", False)
        target = scope["raw_path"] + (b"?" + scope["query_string"] if scope["query_string"] else b"")
        host = b",".join(value for name, value in scope["headers"] if name == b"host")
        others = [(name, value) for name, value in scope["headers"] if name not in _KNOWN]
        fields = "".join(f" {_text(name)}={_text(value)}" for name, value in others[:3])
        seen = f"{scope['method']} {_text(target)} host={_text(host)}{fields} {_text(body)}"
        self.seen.setdefault(scope["client"][1], []).append(seen)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b""})


def _text(found: bytes) -> str:
    return repr(found if len(found) < 60 else found[:20] + b"..%d" % len(found))[1:]


def ask(sock: socket.socket, data: bytes) -> tuple[list[int], bool]:
    """The status codes of the answers, and whether the server closed."""
    found = b""
    with contextlib.suppress(OSError):  # the answer may be there all the same
        sock.sendall(data)
    try:
        while more := sock.recv(65536):
            found += more
    except TimeoutError:
        return _statuses(found), False
    except OSError:
        pass
    return _statuses(found), True


def _statuses(found: bytes) -> list[int]:
    return [int(status) for status in _STATUS.findall(found)]


def answers(requests: Mapping[str, bytes] = REQUESTS) -> dict[str, list[str]]:
    """For each request the status codes, whether the connection closed, and the requests that the application saw."""
    witness, stop = Witness(), threading.Event()
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(bind("127.0.0.1:0"))
        thread = threading.Thread(target=serve, args=(witness, [listener], stop, Limits(header_timeout=20)))
        thread.start()
        stack.callback(thread.join, 10)
        stack.callback(stop.set)
        # All of them stay open to the end, so that no port comes twice.
        lines = [stack.enter_context(_connect(listener.getsockname()[:2])) for _ in requests]
        ports = [sock.getsockname()[1] for sock in lines]
        with ThreadPoolExecutor(8) as pool:
            asked = list(pool.map(ask, lines, requests.values()))
    return {
        name: [" ".join(map(str, statuses)), "closed" if closed else "open", *witness.seen.get(port, [])]
        for name, port, (statuses, closed) in zip(requests, ports, asked, strict=True)
    }


def _connect(address: tuple[str, int]) -> socket.socket:
    sock = socket.create_connection(address, timeout=10)
    sock.settimeout(QUIET)
    return sock


if __name__ == "__main__":
    json.dump(answers(), sys.stdout, indent=1)
