"""The bare exchange: one thread, one keep-alive connection, sendall and recv. Prints its CPU in µs per exchange."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time

BATCH = 2_000


def bare(port: int, body: int, seconds: float) -> float:
    """Measured in a process of its own."""
    command = [sys.executable, "-m", "tests.bench.bare", str(port), str(body), str(seconds)]
    return float(json.loads(subprocess.run(command, capture_output=True, check=True, timeout=120).stdout))


def event(body: int) -> bytes:
    """A delivery as it goes over the wire."""
    head = f"POST / HTTP/1.1\r\nhost: s.localhost\r\ncontent-type: text/plain\r\ncontent-length: {body}\r\n\r\n"
    return head.encode() + b"x" * body


def _main(port: int, body: int, seconds: float) -> float:
    sent = event(body)
    connection = socket.create_connection(("127.0.0.1", port))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    end, used, count = time.monotonic() + seconds, time.process_time(), 0
    while time.monotonic() < end:
        for _ in range(BATCH):
            connection.sendall(sent)
            connection.recv(65536)
        count += BATCH
    return (time.process_time() - used) / count * 1e6


if __name__ == "__main__":
    print(json.dumps(_main(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]))))
