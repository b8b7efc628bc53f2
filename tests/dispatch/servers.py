"""Servers for the dispatch tests, hostile ones included: plain sockets and threads on loopback, a function per test."""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass

ACCEPTED = b"HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n"


def answer(body: bytes = b"", status: str = "200 OK", **headers: str) -> bytes:
    """The bytes of an answer; underscores in header names stand for dashes."""
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    return f"HTTP/1.1 {status}\r\n{lines}content-length: {len(body)}\r\n\r\n".encode() + body


@dataclass(frozen=True)
class Received:
    """One request, as it came."""

    line: bytes
    headers: list[tuple[str, str]]
    body: bytes

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.headers]

    def header(self, name: str) -> str:
        values = [value for key, value in self.headers if key == name]
        assert len(values) == 1, f"{name}: {values}"
        return values[0]


class Conversation:
    """The server's side of one connection."""

    def __init__(self, sock: socket.socket, server: Server) -> None:
        self.sock = sock
        self.server = server
        self.stopping = server.stopping
        self._data = b""

    def read_head(self) -> bytes | None:
        while b"\r\n\r\n" not in self._data:
            received = self.sock.recv(65536)
            if not received:
                return None
            self._data += received
        head, _, self._data = self._data.partition(b"\r\n\r\n")
        return head

    def read(self) -> Received | None:
        """The next request; None when the other side has closed."""
        head = self.read_head()
        if head is None:
            return None
        line, *rest = head.decode("utf-8").split("\r\n")
        headers = [(name.lower(), value.strip()) for name, _, value in (item.partition(":") for item in rest)]
        request = Received(line.encode(), headers, b"".join(self.body(int(dict(headers)["content-length"]))))
        self.server.requests.append(request)
        return request

    def body(self, length: int) -> Iterator[bytes]:
        """What follows the head, piece by piece."""
        while length:
            piece = self._data[:length] or self.sock.recv(min(length, 1 << 16))
            assert piece, "the request ended before its content-length"
            self._data = self._data[len(piece) :]
            length -= len(piece)
            yield piece

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def drip(self, data: bytes) -> None:
        """Byte by byte, for ever over again."""
        while not self.stopping.is_set():
            for index in range(len(data)):
                self.sock.sendall(data[index : index + 1])
                if self.stopping.wait(0.01):
                    return

    def reset(self) -> None:
        """Close with a RST instead of a FIN."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def wait_for_close(self) -> None:
        with contextlib.suppress(OSError):
            while self.sock.recv(65536):
                pass


Behaviour = Callable[[Conversation], None]


class Server:
    """Accepts connections and hands each to `behave` on a thread of its own; when that returns, it closes.

    Attributes:
        requests: what `Conversation.read` has read.
        connections: how many have been accepted.
        closed: how many have ended.
    """

    def __init__(self, behave: Behaviour, *, address: str = "127.0.0.1", tls: ssl.SSLContext | None = None) -> None:
        self.requests: list[Received] = []
        self.connections = 0
        self.closed = 0
        self.stopping = threading.Event()
        self._behave = behave
        self._tls = tls
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server(
            (address, 0), family=socket.AF_INET6 if ":" in address else socket.AF_INET, backlog=128
        )
        self.port: int = self._listener.getsockname()[1]
        self.url = f"http{'s' if tls else ''}://{f'[{address}]' if ':' in address else address}:{self.port}/"
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self.stopping.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(5)
        for sock in list(self._open):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(5)

    def _accept(self) -> None:
        while True:
            try:
                sock = self._listener.accept()[0]
            except OSError:
                return
            self.connections += 1
            self._open.add(sock)
            thread = threading.Thread(target=self._converse, args=(sock,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _converse(self, plain: socket.socket) -> None:
        sock = plain
        # A hostile client, or the end of a test, ends a conversation anywhere.
        with contextlib.suppress(OSError):
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._tls:
                sock = self._tls.wrap_socket(plain, server_side=True)
                self._open.add(sock)
            self._behave(Conversation(sock, self))
        with contextlib.suppress(OSError):
            sock.close()
        self._open.discard(sock)
        self._open.discard(plain)
        self.closed += 1


@contextlib.contextmanager
def serving(behave: Behaviour, *, address: str = "127.0.0.1", tls: ssl.SSLContext | None = None) -> Iterator[Server]:
    server = Server(behave, address=address, tls=tls)
    try:
        yield server
    finally:
        server.close()


def answering(data: bytes) -> Behaviour:
    """Answers every request with the same bytes and keeps the connection open."""

    def behave(conversation: Conversation) -> None:
        while conversation.read():
            conversation.send(data)

    return behave


def answering_once(data: bytes) -> Behaviour:
    """Answers the first request of a connection, then closes it."""

    def behave(conversation: Conversation) -> None:
        if conversation.read():
            conversation.send(data)

    return behave


def echo(conversation: Conversation) -> None:
    """Answers each request with its own body."""
    while request := conversation.read():
        conversation.send(answer(request.body))
