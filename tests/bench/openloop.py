"""An open-loop sender and a subscriber that tells the time: latency from the moment an event was due, whoever was late.

Each event is due at a moment of its own and carries it; a sender that falls behind does not stretch the schedule, so
that a stall counts for every event that was due in it (no coordinated omission).

Run as `python -m tests.bench.openloop send HOST:PORT HOSTNAME RATE SECONDS CONNECTIONS BODY`, which prints what was
answered, and as `python -m tests.bench.openloop serve`, which prints its port, then on each line of standard input the
latencies since the last, as JSON.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections import Counter, deque


class _Sender(asyncio.Protocol):
    """One keep-alive connection; busy until its answer is complete."""

    def __init__(self, owner: _Senders) -> None:
        self.owner = owner
        self.transport: asyncio.Transport | None = None
        self.data = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.data += data
        head, found, rest = self.data.partition(b"\r\n\r\n")
        if not found:
            return
        length = head.lower().partition(b"content-length:")[2].split(b"\r\n")[0]
        if len(rest) >= int(length or 0):
            self.data = b""
            self.owner.answered(self, int(head[9:12]))


class _Senders:
    def __init__(self, host: str, body: int) -> None:
        head = f"POST / HTTP/1.1\r\nhost: {host}\r\ncontent-type: text/plain\r\ncontent-length: {body}\r\n\r\n"
        self.head = head.encode()
        self.body = body
        self.idle: deque[_Sender] = deque()
        self.waiting: deque[float] = deque()
        self.answers: Counter[int] = Counter()

    def due(self, moment: float) -> None:
        if self.idle:
            self.send(self.idle.popleft(), moment)
        else:
            self.waiting.append(moment)

    def send(self, sender: _Sender, moment: float) -> None:
        assert sender.transport is not None
        sender.transport.write(self.head + b"%018.6f" % moment + b"x" * (self.body - 18))

    def answered(self, sender: _Sender, status: int) -> None:
        self.answers[status] += 1
        if self.waiting:
            self.send(sender, self.waiting.popleft())
        else:
            self.idle.append(sender)


async def _send(address: str, host: str, rate: float, seconds: float, connections: int, body: int) -> dict[str, object]:
    where, _, port = address.rpartition(":")
    senders = _Senders(host, body)
    loop = asyncio.get_running_loop()
    for _ in range(connections):
        _, protocol = await loop.create_connection(lambda: _Sender(senders), where, int(port))
        senders.idle.append(protocol)
    begun, count, total = time.monotonic(), 0, int(rate * seconds)
    while count < total:
        now = time.monotonic()
        while count < total and begun + count / rate <= now:
            senders.due(begun + count / rate)
            count += 1
        await asyncio.sleep(0.0005)
    deadline = time.monotonic() + 20
    while sum(senders.answers.values()) < count and time.monotonic() < deadline:
        await asyncio.sleep(0.005)
    return {"sent": count, "answers": {str(status): number for status, number in senders.answers.items()}}


class _Subscriber(asyncio.Protocol):
    latencies: list[float]
    pace: float
    free_at: float = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.data = b""

    def data_received(self, data: bytes) -> None:
        self.data += data
        while True:
            head, found, rest = self.data.partition(b"\r\n\r\n")
            if not found:
                return
            length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
            if len(rest) < length:
                return
            stamped = rest[:1].isdigit()  # other senders' events are only counted
            self.latencies.append(time.monotonic() - float(rest[:18]) if stamped else 0.0)
            self.data = rest[length:]
            self.answer()

    def answer(self) -> None:
        if not self.pace:
            self.transport.write(b"HTTP/1.1 204 No Content\r\n\r\n")
            return
        # One after the other, as a subscriber that does so many a second would.
        kind = type(self)
        kind.free_at = max(kind.free_at, time.monotonic()) + 1 / self.pace
        wait = kind.free_at - time.monotonic()
        asyncio.get_running_loop().call_later(wait, self.transport.write, b"HTTP/1.1 204 No Content\r\n\r\n")


async def _serve(pace: float) -> None:
    latencies: list[float] = []
    kind = type("Subscriber", (_Subscriber,), {"latencies": latencies, "pace": pace})
    loop = asyncio.get_running_loop()
    server = await loop.create_server(kind, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    while await loop.run_in_executor(None, sys.stdin.readline):
        print(json.dumps(latencies), flush=True)
        latencies.clear()


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        asyncio.run(_serve(float(sys.argv[2]) if len(sys.argv) > 2 else 0.0))
    else:
        address, host, rate, seconds, connections, body = sys.argv[2:]
        print(json.dumps(asyncio.run(_send(address, host, float(rate), float(seconds), int(connections), int(body)))))
