"""The floor: an epoll loop that answers 202 and sends the same bytes on, and reads nothing of either.

Only the system calls of an event are left, so no bus in Python can be cheaper. Like a bus it holds a bounded number of
events: it reads no request while too many deliveries wait. `throughput` compares ours with it.
"""

from __future__ import annotations

import contextlib
import select
import socket
import subprocess
import sys
from collections.abc import Iterator

from tests.bench.bare import event
from tests.support import free_port, request, wait_for

LINES = 64
"""Connections to the subscriber: as many exchanges as the bus has under way while it is busy."""

FULL, LOW = 10 * LINES, LINES
"""With more waiting deliveries than the first it reads no request; with fewer than the second it reads again. Without
a bound most deliveries would be measured after the load, when no sender takes turns with them on the cores."""

ANSWER = b"HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n"


class Floor:
    """The loop in a process of its own, which delivers each event so many times to a port."""

    def __init__(self, port: int, deliveries: int) -> None:
        self.events = f"127.0.0.1:{free_port()}"
        command = [sys.executable, "-m", "tests.bench.floor", self.events, str(port), str(deliveries)]
        self.process = subprocess.Popen(command)

    def worker_pids(self) -> list[int]:
        return [self.process.pid]

    def answers(self) -> bool:
        with contextlib.suppress(OSError):
            return request(self.events, body=b"x").status == 202
        return False


@contextlib.contextmanager
def floor(port: int, deliveries: int) -> Iterator[Floor]:
    process = Floor(port, deliveries)
    try:
        wait_for(process.answers, 20, "the floor answers")
        yield process
    finally:
        process.process.terminate()
        process.process.wait(20)


def _main(events: str, port: int, deliveries: int) -> None:
    sent = event(256)
    host, _, number = events.rpartition(":")
    listener = socket.create_server((host, int(number)))
    epoll = select.epoll()
    epoll.register(listener, select.EPOLLIN)
    senders: dict[int, socket.socket] = {}
    lines: dict[int, socket.socket] = {}
    free: list[socket.socket] = []
    waiting, reading = 0, True

    def watch(sock: socket.socket, book: dict[int, socket.socket]) -> socket.socket:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setblocking(False)
        book[sock.fileno()] = sock
        epoll.register(sock, select.EPOLLIN)
        return sock

    for _ in range(LINES):
        free.append(watch(socket.create_connection(("127.0.0.1", port)), lines))
    while True:
        if (reading and waiting > FULL) or (not reading and waiting < LOW):
            reading = not reading
            for descriptor in senders:
                epoll.modify(descriptor, select.EPOLLIN if reading else 0)
        for descriptor, _ in epoll.poll():
            line = lines.get(descriptor)
            if line is not None:
                line.recv(65536)
                if waiting:
                    line.send(sent)
                    waiting -= 1
                else:
                    free.append(line)
                continue
            sender = senders.get(descriptor)
            if sender is None:
                watch(listener.accept()[0], senders)
                continue
            try:
                received = sender.recv(65536)
                if received:
                    sender.send(ANSWER)
            except ConnectionError:
                received = b""
            if not received:
                senders.pop(descriptor).close()
                continue
            for _ in range(deliveries):
                if free:
                    free.pop().send(sent)
                else:
                    waiting += 1


if __name__ == "__main__":
    _main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
