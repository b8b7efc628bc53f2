"""The bus as a real process: started, asked, stopped and killed."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import sqlite3
import subprocess
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tests.support.requests import Response, request
from tests.support.waiting import BUS, free_port, wait_for


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


def stored(state: Path) -> dict[str, dict[str, Any]]:
    """The resources in a state directory, by KIND/NAME; empty while there is no database."""
    try:
        with contextlib.closing(sqlite3.connect(f"file:{state / 'state.db'}?mode=ro", uri=True)) as database:
            rows = database.execute("SELECT kind, name, object FROM resources").fetchall()
    except sqlite3.OperationalError:
        return {}
    return {f"{kind}/{name}": json.loads(text) for kind, name, text in rows}


def manifest(kind: str, name: str, **spec: Any) -> dict[str, Any]:
    """An object of this API group in the namespace default."""
    metadata = {"name": name} if kind == "ClusterBus" else {"name": name, "namespace": "default"}
    return {"apiVersion": "channels.knative.dev/v1alpha1", "kind": kind, "metadata": metadata, "spec": spec}
