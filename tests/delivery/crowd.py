"""A crowd of subscribers in a process of their own: prompt ones that note how late each event is, and hostile ones.

Run as a program it prints its port and serves until its standard input closes. The Host says who is meant: hung-…,
drip-…, reset-… behave like that, all others answer 204. GET / answers the latencies since the last one, as JSON.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections import defaultdict

from tests.support import ROOT, request

OK = b"HTTP/1.1 204 No Content\r\n\r\n"
latencies: defaultdict[str, list[float]] = defaultdict(list)


class Member(asyncio.Protocol):
    """One connection. Bodies begin with the moment of sending, in seconds of the machine's monotonic clock."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.buffer = b""

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        while (end := self.buffer.find(b"\r\n\r\n")) >= 0:
            head = self.buffer[:end].lower()
            length = int(head.split(b"content-length:")[1].split(b"\r\n")[0]) if b"content-length:" in head else 0
            if len(self.buffer) < end + 4 + length:
                return
            body = self.buffer[end + 4 : end + 4 + length]
            self.buffer = self.buffer[end + 4 + length :]
            self.answer(head, body)

    def answer(self, head: bytes, body: bytes) -> None:
        name = head.split(b"host: ")[1].split(b".")[0].decode()
        if head.startswith(b"get"):
            report = json.dumps(latencies).encode()
            latencies.clear()
            self.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(report), report))
        elif name.startswith("hung"):
            return
        elif name.startswith("reset"):
            self.transport.abort()
        elif name.startswith("drip"):
            self.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
            self.drip()
        else:
            latencies[name].append(time.monotonic() - float(body[:20]))
            self.transport.write(OK)

    def drip(self) -> None:
        if not self.transport.is_closing():
            self.transport.write(b"x")
            asyncio.get_running_loop().call_later(0.05, self.drip)


async def serve() -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Member, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    ended = loop.create_future()
    loop.add_reader(sys.stdin.fileno(), lambda: None if ended.done() else ended.set_result(None))
    await ended


class Crowd:
    """The process, from outside."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.delivery.crowd"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline())

    def url(self, name: str) -> str:
        return f"http://{name}.localhost:{self.port}/"

    def latencies(self) -> dict[str, list[float]]:
        """Seconds from sending to arrival, by subscriber, since the last call."""
        found: dict[str, list[float]] = json.loads(request(f"127.0.0.1:{self.port}", "GET", body=None).text)
        return found

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(10)


def stamp() -> bytes:
    """A body that says when it was made."""
    return b"%020.9f" % time.monotonic()


if __name__ == "__main__":
    asyncio.run(serve())
