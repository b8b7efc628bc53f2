"""What many tests share: waiting with a deadline, subscribers of flesh and blood, and the bus as a real process."""

from __future__ import annotations

import contextlib
import http.client
import os
import queue
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")

ROOT = Path(__file__).resolve().parent.parent
QUICKSTART = ROOT / "examples" / "quickstart"
BUS = Path(sys.executable).with_name("bus")


def wait_for(condition: Callable[[], T], timeout: float = 10.0, what: str = "") -> T:
    """The condition's first true value; fails when there is none within the time."""
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout:g} s: {what or condition}")
        time.sleep(0.01)


def free_port() -> int:
    """A port that nobody listens on, from below the range that the system gives to outgoing connections: one from that
    range may be taken again before its server binds it."""
    while True:
        port = random.randrange(12_000, 32_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


@dataclass(frozen=True)
class Request:
    """One request that a subscriber got."""

    host: str
    headers: Mapping[str, str]
    body: bytes
    at: float


@dataclass
class Answer:
    """What a subscriber answers."""

    status: int = 204
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


class _Server(ThreadingHTTPServer):
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away in the middle is what many tests are about."""


class Subscriber:
    """A real HTTP server on loopback that keeps what it got. `behave` decides the answer, and may be replaced."""

    def __init__(self, behave: Callable[[Request], Answer] | None = None) -> None:
        self.requests: list[Request] = []
        self.behave = behave or (lambda _: Answer())
        self._server = _Server(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def url(self, name: str = "subscriber") -> str:
        return f"http://{name}.localhost:{self.port}/"

    def bodies(self, name: str | None = None) -> list[bytes]:
        return [request.body for request in list(self.requests) if name is None or request.host.split(".")[0] == name]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        owner = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length") or 0))
                headers = {name.lower(): value for name, value in self.headers.items()}
                request = Request(headers.get("host", ""), headers, body, time.monotonic())
                owner.requests.append(request)
                answer = owner.behave(request)
                self.send_response(answer.status)
                for name, value in answer.headers.items():
                    self.send_header(name, value)
                if answer.status not in (204, 304):
                    self.send_header("content-length", str(len(answer.body)))
                self.end_headers()
                self.wfile.write(answer.body)

            def log_message(self, *_: Any) -> None:
                """A test's output is for what failed."""

        return Handler


@contextlib.contextmanager
def subscriber(behave: Callable[[Request], Answer] | None = None) -> Iterator[Subscriber]:
    server = Subscriber(behave)
    try:
        yield server
    finally:
        server.close()


@dataclass(frozen=True)
class Response:
    status: int
    headers: Mapping[str, str]
    text: str


def request(
    address: str,
    method: str = "POST",
    path: str = "/",
    *,
    host: str | None = None,
    body: bytes | None = b"x",
    **headers: str,
) -> Response:
    """One plain request; underscores in header names stand for dashes."""
    connection = http.client.HTTPConnection(address, timeout=10)
    try:
        connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
        connection.putheader("Host", host if host is not None else address)
        for name, value in headers.items():
            connection.putheader(name.replace("_", "-"), value)
        if body is not None:
            connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body)
        response = connection.getresponse()
        got = {name.lower(): value for name, value in response.getheaders()}
        return Response(response.status, got, response.read().decode(errors="replace"))
    finally:
        connection.close()


def raw(address: str, data: bytes, *, shut: bool = False, timeout: float = 5.0) -> bytes:
    """Send bytes as they are, and read until the other side closes or goes quiet."""
    host, _, port = address.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=timeout) as sock:
        sock.sendall(data)
        if shut:
            sock.shutdown(socket.SHUT_WR)
        answer = b""
        with contextlib.suppress(TimeoutError, ConnectionResetError):
            while chunk := sock.recv(65536):
                answer += chunk
                head, found, rest = answer.partition(b"\r\n\r\n")
                length = next(
                    (
                        int(line.split(b":")[1])
                        for line in head.lower().split(b"\r\n")
                        if line.startswith(b"content-length")
                    ),
                    0,
                )
                if found and len(rest) >= length:
                    break
        return answer


def children(parent: int) -> list[int]:
    """The processes that this one has started. (The kernel's own list of them may leave some out.)"""
    if not Path("/proc").exists():
        listed = subprocess.run(["pgrep", "-P", str(parent)], capture_output=True, text=True, check=False)
        return [int(pid) for pid in listed.stdout.split()]
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            number = int(entry.name)
            if int((entry / "stat").read_text().rpartition(")")[2].split()[1]) == parent:
                found.append(number)
    return sorted(found)


class BusProcess:
    """`bus run` as a process of its own, with its log read line by line; on a folder unless the arguments name a
    cluster."""

    def __init__(
        self,
        manifests: Path | None,
        state: Path | None,
        *arguments: str,
        bus: str = "default/demo",
        env: Mapping[str, str] | None = None,
        program: Path = BUS,
    ) -> None:
        self.workers = int(arguments[arguments.index("--workers") + 1]) if "--workers" in arguments else 1
        self.namespace = bus.rpartition("/")[0] or "default"
        self.events = f"127.0.0.1:{free_port()}"
        self.admin = f"127.0.0.1:{free_port()}"
        command = [str(program), "run", "--bus", bus]
        if manifests is not None:
            command += ["--manifests", str(manifests), "--state-dir", str(state)]
        command += ["--bind", self.events, "--admin-bind", self.admin, *arguments]
        self.process = subprocess.Popen(
            command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, env={**os.environ, **(env or {})}
        )
        self.lines: list[str] = []
        self._queue: queue.Queue[str] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def wait_ready(self, timeout: float = 20.0) -> BusProcess:
        wait_for(lambda: self.is_ready() or self.process.poll() is not None, timeout, "the bus is ready")
        assert self.process.poll() is None, self.log
        return self

    def is_ready(self) -> bool:
        with contextlib.suppress(OSError, http.client.HTTPException):
            return request(self.admin, "GET", "/readyz", body=None).status == 200
        return False

    def send(self, channel: str, body: bytes = b"x", **headers: str) -> Response:
        return request(self.events, host=f"{channel}.{self.namespace}", body=body, **headers)

    def wait_served(self, *channels: str) -> BusProcess:
        """Until the log of every worker says that these channels take events."""
        for name in channels:
            served = lambda name=name: len(self.says("serving", f"{self.namespace}/{name}")) >= self.workers  # noqa: E731
            wait_for(served, 15, f"{name} is served")
        return self

    def says(self, *fragments: str) -> list[str]:
        return [line for line in list(self.lines) if all(fragment in line for fragment in fragments)]

    def metric(self, name: str, **labels: str) -> float:
        """The value of a metric; 0 if it is not there."""
        text = request(self.admin, "GET", "/metrics", body=None).text
        wanted = [f'{label}="{value}"' for label, value in labels.items()]
        for line in text.splitlines():
            if line.startswith((f"{name}{{", f"{name} ")) and all(part in line for part in wanted):
                return float(line.rsplit(" ", 1)[1])
        return 0.0

    @property
    def log(self) -> str:
        return "\n".join(self.lines)

    def worker_pids(self) -> list[int]:
        return children(self.process.pid)

    def stop(self, number: int = signal.SIGTERM, timeout: float = 20.0) -> int:
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            code = self.process.wait(timeout)
        finally:
            self.kill()
        return code

    def kill(self) -> None:
        if self.process.poll() is None:
            for pid in self.worker_pids():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self.process.kill()
            self.process.wait()
        self._reader.join(2)

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append(line.rstrip())


@contextlib.contextmanager
def bus(manifests: Path, state: Path, *arguments: str, **options: Any) -> Iterator[BusProcess]:
    """A running bus, ready to serve."""
    process = BusProcess(manifests, state, *arguments, **options)
    try:
        yield process.wait_ready()
    finally:
        process.kill()


def manifest(kind: str, name: str, **spec: Any) -> dict[str, Any]:
    """An object of this API group in the namespace default."""
    metadata = {"name": name} if kind == "ClusterBus" else {"name": name, "namespace": "default"}
    return {"apiVersion": "channels.knative.dev/v1alpha1", "kind": kind, "metadata": metadata, "spec": spec}
