"""An asyncio server that answers with the same bytes, whatever it reads: the least that a server on asyncio costs."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
from collections.abc import Iterator
from typing import cast

from tests.support import free_port, request, wait_for

ANSWER = b"HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n"


class Fixed:
    """It, as a process of its own."""

    def __init__(self) -> None:
        self.events = f"127.0.0.1:{free_port()}"
        self.process = subprocess.Popen([sys.executable, "-m", "tests.bench.fixed", self.events])

    def worker_pids(self) -> list[int]:
        return [self.process.pid]

    def answers(self) -> bool:
        with contextlib.suppress(OSError):
            return request(self.events, body=b"x").status == 202
        return False


@contextlib.contextmanager
def fixed() -> Iterator[Fixed]:
    process = Fixed()
    try:
        wait_for(process.answers, 20, "the fixed answers come")
        yield process
    finally:
        process.process.terminate()
        process.process.wait(20)


class _Protocol(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._transport.write(ANSWER)


async def _main(address: str) -> None:
    host, _, port = address.rpartition(":")
    server = await asyncio.get_running_loop().create_server(_Protocol, host, int(port))
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_main(sys.argv[1]))
