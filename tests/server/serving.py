"""A server on a thread with a service that says what it got, and connections to it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from bus_core.data_plane.server import ASGIApp, Connections, Limits, Service, bind, serve

S = TypeVar("S", bound=Service)


class Echo:
    """Answers with what it got."""

    def __init__(self) -> None:
        self.stopped = threading.Event()
        self.bodies: list[bytes] = []
        self.hold: threading.Event | None = None
        self.first: Callable[[], None] | None = None

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Nothing to start."""

    async def stop(self, connections: Connections) -> None:
        connections.close_idle()
        self.stopped.set()

    def app_at(self, address: tuple[str, int]) -> ASGIApp:
        return self._answer

    async def _answer(self, scope: Any, receive: Any, send: Any) -> None:
        body = b""
        while True:
            event = await receive()
            if event["type"] == "http.disconnect":
                return
            body += event.get("body", b"")
            if not event.get("more_body", False):
                break
        self.bodies.append(body)
        if self.first is not None and len(self.bodies) == 1:
            asyncio.get_running_loop().call_soon(self.first)
        while self.hold is not None and not self.hold.is_set():
            await asyncio.sleep(0.01)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": body})


@contextlib.contextmanager
def serving(limits: Limits, service: S, stop: threading.Event | None = None) -> Iterator[tuple[str, S]]:
    stop = stop or threading.Event()
    with bind("127.0.0.1:0") as listener:
        thread = threading.Thread(target=serve, args=(service, [listener], stop, limits))
        thread.start()
        try:
            yield f"127.0.0.1:{listener.getsockname()[1]}", service
        finally:
            stop.set()
            thread.join(10)
            assert not thread.is_alive()


def connect(address: str, data: bytes = b"") -> socket.socket:
    host, _, port = address.rpartition(":")
    sock = socket.create_connection((host, int(port)), timeout=5)
    sock.sendall(data)
    return sock
