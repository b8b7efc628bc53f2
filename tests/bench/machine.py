"""What a benchmark starts and reads on this machine: wrk, nginx, the bus, and the books of the kernel."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import tempfile
import urllib.request
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.bench.report import MissingTool
from tests.support import free_port, wait_for

_TICKS = os.sysconf("SC_CLK_TCK")


def need(tool: str) -> str:
    """The path of a program, or a named skip."""
    path = shutil.which(tool)
    if path is None:
        raise MissingTool(f"{tool} is not installed (Debian: apt-get install {tool})")
    return path


def cpu(pids: Iterable[int]) -> float:
    """User and system seconds of these processes, all their threads included."""
    total = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total / _TICKS


def rss(pids: Iterable[int]) -> float:
    """Resident megabytes of these processes together."""
    return sum(_status(pid, "VmRSS") for pid in pids) / 1024


def threads(pids: Iterable[int]) -> int:
    return sum(_status(pid, "Threads") for pid in pids)


def _status(pid: int, name: str) -> int:
    found = re.search(rf"^{name}:\s+(\d+)", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1])


@dataclass(frozen=True, slots=True)
class Load:
    """What wrk got: answers by kind, and the seconds it took."""

    seconds: float
    accepted: int
    refused: int
    broken: int


def wrk(address: str, host: str, *, seconds: float, connections: int, body: int, close: bool = False) -> Load:
    """POST events as fast as they are answered."""
    script = (
        f'wrk.method = "POST"\nwrk.body = string.rep("x", {body})\n'
        f'wrk.headers["Host"] = "{host}"\nwrk.headers["Content-Type"] = "text/plain"\n'
    )
    if close:
        script += 'wrk.headers["Connection"] = "close"\n'
    script += (
        "done = function(summary)\n"
        '  io.write(string.format("RESULT %d %d %d %d\\n", summary.requests, summary.errors.status,\n'
        "    summary.errors.connect + summary.errors.read + summary.errors.write + summary.errors.timeout,\n"
        "    summary.duration))\nend\n"
    )
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as file:
        file.write(script)
        file.flush()
        command = [need("wrk"), "-t1", f"-c{connections}", f"-d{seconds:g}s", "--timeout", "10s", "-s", file.name]
        result = subprocess.run(
            [*command, f"http://{address}/"], capture_output=True, text=True, check=True, timeout=seconds + 60
        )
    found = re.search(r"RESULT (\d+) (\d+) (\d+) (\d+)", result.stdout)
    assert found is not None, result.stdout
    requests, refused, broken, micros = map(int, found.groups())
    return Load(micros / 1e6, requests - refused, refused, broken)


class Nginx:
    """A subscriber that answers 204, and counts."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.pids: list[int] = []
        config = folder / "nginx.conf"
        config.write_text(
            f"""daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/error.log crit;
events {{ worker_connections 4096; }}
http {{
  access_log off; keepalive_requests 100000000; keepalive_timeout 300s; client_max_body_size 16m;
  client_body_buffer_size 2m; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi; uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  server {{
    listen 127.0.0.1:{self.port} backlog=4096;
    location / {{ return 204; }}
    location = /status {{ stub_status; }}
  }}
}}
"""
        )
        self._process = subprocess.Popen([need("nginx"), "-p", str(folder), "-c", str(config)])
        self._asked = 0
        wait_for(self._answers, 10, "nginx answers")

    def count(self) -> int:
        """Requests so far, those of this method left out."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/status", timeout=10) as answer:
            found = re.search(r"\n\s*\d+ \d+ (\d+)", answer.read().decode())
        assert found is not None
        self._asked += 1
        return int(found[1]) - self._asked

    def url(self, name: str = "subscriber") -> str:
        return f"http://{name}.localhost:{self.port}/"

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(10)

    def _answers(self) -> bool:
        with contextlib.suppress(OSError):
            self.count()
            return True
        return False


@contextlib.contextmanager
def nginx() -> Iterator[Nginx]:
    need("nginx")
    with tempfile.TemporaryDirectory() as folder:
        server = Nginx(Path(folder))
        try:
            yield server
        finally:
            server.stop()
