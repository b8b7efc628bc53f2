"""Measures what one exchange of the dispatcher costs in CPU, beside the bare socket and urllib3's own `urlopen`.

Run it with `python tests/bench/dispatch_exchange.py`. The subscriber is a process of its own; the ways take turns in
short rounds, because machines drift, and what counts is the median of the ratios within a round. Both processes share
one core, so that the scheduler's choice does not decide the result: `--cores apart` wakes an idle core for every
exchange, which multiplies the cost of all code that runs after it.
"""

from __future__ import annotations

import argparse
import os
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import urllib3

from bus_core.data_plane.dispatch import MessageDispatcher, encode
from bus_core.model.message import Message

HEADERS = {
    "content-type": "application/json",
    "ce-specversion": "1.0",
    "ce-id": "0b6f2d3c-2a54-4f5e-9d57-2f8e5b0c7f11",
    "ce-source": "/bench",
    "ce-type": "com.example.bench",
    "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
}
ANSWER = b"HTTP/1.1 202 Accepted\r\nserver: bench\r\ndate: Mon, 01 Jan 2024 00:00:00 GMT\r\ncontent-length: 0\r\n\r\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--exchanges", type=int, default=300, help="per round and way")
    parser.add_argument("--payload", type=int, default=256, help="bytes")
    parser.add_argument("--cores", choices=["one", "apart", "free"], default="one", help="Linux only")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve()
        return
    cores = {"one": (0, 0), "apart": (0, 1)}.get(options.cores) if hasattr(os, "sched_setaffinity") else None
    if cores:
        os.sched_setaffinity(0, {cores[1]})  # inherited by the subscriber
    subscriber = subprocess.Popen([sys.executable, __file__, "--serve"], stdout=subprocess.PIPE, text=True)
    if cores:
        os.sched_setaffinity(0, {cores[0]})
    try:
        assert subscriber.stdout is not None
        port = int(subscriber.stdout.readline())
        report(measure(ways(port, options.payload), options.rounds, options.exchanges))
    finally:
        subscriber.kill()
        subscriber.wait()


def ways(port: int, size: int) -> dict[str, Callable[[], object]]:
    """The same event, sent in each way; each call is one exchange."""
    message = Message(HEADERS, b"x" * size)
    event = encode(message)
    dispatcher = MessageDispatcher()
    route = dispatcher.route(f"http://127.0.0.1:{port}/")
    request = route.prefix + event.head + event.payload
    bare = socket.create_connection(("127.0.0.1", port))
    bare.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    pool = urllib3.HTTPConnectionPool("127.0.0.1", port)

    def exchange() -> object:
        bare.sendall(request)
        return bare.recv(65536)

    return {
        "bare socket": exchange,
        "dispatcher": lambda: dispatcher.send(route, event),
        "dispatcher, encoding each time": lambda: dispatcher.send(route, message),
        "urlopen": lambda: pool.urlopen("POST", "/", body=message.payload, headers=HEADERS),
        "bare socket again": exchange,
    }


def measure(calls: dict[str, Callable[[], object]], rounds: int, exchanges: int) -> dict[str, list[float]]:
    """Microseconds of CPU (user and system, of this process) per exchange: a list with one value per round."""
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(rounds + 1):
        for name, call in calls.items():
            begin = time.process_time()
            for _ in range(exchanges):
                call()
            if number:  # the first round warms up
                taken[name].append((time.process_time() - begin) / exchanges * 1e6)
    return taken


def report(taken: dict[str, list[float]]) -> None:
    base = taken["bare socket"]
    for name, values in taken.items():
        ratio = statistics.median(value / other for value, other in zip(values, base, strict=True))
        print(f"{name:32} {statistics.median(values):7.1f} µs CPU per exchange   {ratio:5.2f} x the bare socket")


def serve() -> None:
    """The subscriber: reads a request of known form, answers 202."""
    listener = socket.create_server(("127.0.0.1", 0))
    print(listener.getsockname()[1], flush=True)
    while True:
        threading.Thread(target=answer, args=(listener.accept()[0],), daemon=True).start()


def answer(connection: socket.socket) -> None:
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    data = b""
    while received := connection.recv(65536):
        data += received
        head, separator, body = data.partition(b"\r\n\r\n")
        if separator and len(body) >= int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0]):
            data = b""
            connection.sendall(ANSWER)


if __name__ == "__main__":
    main()
