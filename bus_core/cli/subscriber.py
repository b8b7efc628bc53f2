"""Command line: the subscribers of `bus demo`, a small HTTP server that shows events and replies to some."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from bus_core.data_plane.server import ASGIApp, Connections, bind, serve


@dataclass(frozen=True, slots=True)
class Arrival:
    """An event that reached a subscriber."""

    subscriber: str
    id: str
    data: bytes
    headers: dict[str, str]


class Subscriber:
    """Serves several subscribers on its own thread: `http://NAME.localhost:PORT/` is the subscriber NAME.

    Args:
        address: HOST:PORT to listen on.
        answering: the names of the subscribers that reply with an event.
        arrived: called with every event, on the server's thread.
    """

    def __init__(self, address: str, answering: set[str], arrived: Callable[[Arrival], None]) -> None:
        self._answering = answering
        self._arrived = arrived
        self._socket = bind(address)
        self.port: int = self._socket.getsockname()[1]
        self._stop = threading.Event()
        self._thread = threading.Thread(target=serve, args=(self, [self._socket], self._stop), name="subscriber")
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        self._thread.join()
        self._socket.close()

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Nothing to start."""

    async def stop(self, connections: Connections) -> None:
        connections.close_idle()

    def app_at(self, address: tuple[str, int]) -> ASGIApp:
        return self._serve

    async def _serve(self, scope: Any, receive: Any, send: Any) -> None:
        body = b""
        while True:
            event = await receive()
            body += event.get("body", b"")
            if not event.get("more_body", False):
                break
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        name = headers.get("host", "").partition(".")[0]
        self._arrived(Arrival(name, headers.get("ce-id", ""), body, headers))
        answer: list[tuple[bytes, bytes]] = []
        text = b""
        if name in self._answering:
            text = json.dumps({"answer to": headers.get("ce-id", ""), "at": time.time()}).encode()
            answer = [
                (b"content-type", b"application/json"),
                (b"ce-specversion", b"1.0"),
                (b"ce-id", f"reply-{headers.get('ce-id', '')}".encode()),
                (b"ce-source", f"/{name}".encode()),
                (b"ce-type", b"com.example.receipt"),
            ]
        await send({"type": "http.response.start", "status": 200 if text else 204, "headers": answer})
        await send({"type": "http.response.body", "body": text})
