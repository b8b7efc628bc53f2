"""As many events as can be sent, by a process of its own: pipelined requests over one connection, answers counted.

Usage: python -m tests.host.flood HOST:PORT CHANNEL NUMBER. Prints the statuses and how often each came, as JSON.
"""

from __future__ import annotations

import json
import re
import socket
import sys
from collections import Counter

BATCH = 50
BODY = b"x" * 256
_HEAD = re.compile(
    rb"HTTP/1\.1 (\d{3})[^\r]*\r\n(?:[^\r]+\r\n)*?content-length: (\d+)\r\n(?:[^\r]+\r\n)*\r\n", re.IGNORECASE
)


def flood(address: str, channel: str, number: int) -> Counter[int]:
    host, _, port = address.rpartition(":")
    request = b"POST / HTTP/1.1\r\nHost: %s.default\r\nContent-Length: %d\r\n\r\n%s" % (
        channel.encode(),
        len(BODY),
        BODY,
    )
    statuses: Counter[int] = Counter()
    with socket.create_connection((host, int(port)), timeout=60) as sock:
        buffer = b""
        for _ in range(number // BATCH):
            sock.sendall(request * BATCH)
            missing = BATCH
            while missing:
                while (found := _HEAD.match(buffer)) and len(buffer) >= found.end() + int(found[2]):
                    statuses[int(found[1])] += 1
                    buffer = buffer[found.end() + int(found[2]) :]
                    missing -= 1
                if missing:
                    received = sock.recv(1 << 16)
                    if not received:
                        raise ConnectionError("the bus closed the connection")
                    buffer += received
    return statuses


if __name__ == "__main__":
    print(json.dumps(flood(sys.argv[1], sys.argv[2], int(sys.argv[3]))))
