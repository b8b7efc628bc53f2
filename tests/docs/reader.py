"""A reader of the documentation: runs a page's code blocks in order, in a folder of their own.

```console                 `$ ` lines run in bash; other lines must appear in the output (… stands for anything)
```console background      the same, left running until the page ends
```python                  run as a script
```LANG file=NAME          written to a file first; python with norun is only written
```LANG skip="reason"      not run; the list of these is asserted by the tests
```console checkout        run in a clone of this repository, beside the environment of the tests
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support import ROOT, free_port, request, wait_for

SERVED = ("kafka.md", "kubernetes.md")
"""Pages whose blocks need real servers; the end-to-end tests follow them."""

PORTS = ("8080", "9090", "8090")
_BLOCK = re.compile(r"^```(\w+)([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_WAIT = 30.0


@dataclass(frozen=True)
class Block:
    language: str
    info: str
    text: str

    @property
    def skip(self) -> str:
        found = re.search(r'skip="([^"]*)"', self.info)
        return found[1] if found else ""

    @property
    def file(self) -> str:
        found = re.search(r"file=(\S+)", self.info)
        return found[1] if found else ""


def blocks(page: Path) -> list[Block]:
    return [Block(*found) for found in _BLOCK.findall(page.read_text())]


class Reader:
    """Somebody who follows a page in a folder of their own. Ports are replaced by free ones."""

    def __init__(self, folder: Path, ports: Mapping[str, str] | None = None, **env: str) -> None:
        self.folder = folder
        self.ports = {port: str(free_port()) for port in PORTS} | dict(ports or {})
        shutil.copytree(ROOT / "examples", folder / "examples")
        for path in (folder / "examples").rglob("*.yaml"):
            path.write_text(self.put_ports(path.read_text()))
        self.env = {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "XDG_STATE_HOME": str(folder / ".state"),
            "BUS_BIND": f"127.0.0.1:{self.ports['8080']}",
            "BUS_ADMIN_BIND": f"127.0.0.1:{self.ports['9090']}",
            "PYTHONUNBUFFERED": "1",
            **{
                f"GIT_{who}_{what}": "reader@example.com"
                for who in ("AUTHOR", "COMMITTER")
                for what in ("NAME", "EMAIL")
            },
            **env,
        }
        self.running: list[subprocess.Popen[bytes]] = []

    def put_ports(self, text: str) -> str:
        for port, free in self.ports.items():
            text = re.sub(rf"\b{port}\b", free, text)
        # `bus send` has a default address that no environment variable changes: a page's reader has port 8080 free.
        return re.sub(r"\bbus send (?!.*--to)", f"bus send --to http://127.0.0.1:{self.ports['8080']}/ ", text)

    def follow(self, page: Path) -> None:
        """Do what the page says, block by block."""
        for block in blocks(page):
            assert block.language in ("console", "python", "yaml", "toml", "text"), f"nothing runs {block.language}"
            if block.language in ("yaml", "toml"):
                assert block.file or block.skip, "a block that is neither written nor run says nothing"
            if not block.skip:
                self._do(block)

    def _do(self, block: Block) -> None:
        text = self.put_ports(block.text)
        if block.file:
            path = self.folder / block.file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        elif block.language == "python":
            self.run(f"python - <<'PYTHON_END'\n{text}\nPYTHON_END")
        elif block.language == "console":
            self.console(block, text)

    def console(self, block: Block, text: str) -> None:
        command, expected = "", []
        for line in [*text.splitlines(), "$ "]:
            if not line.startswith("$ "):
                expected.append(line)
                continue
            if command and "background" in block.info:
                self.start(command)
            elif command:
                output = self.run(command, self.checkout() if "checkout" in block.info else None)
                for shown in expected:
                    for part in filter(None, (piece.strip() for piece in shown.split("…"))):
                        assert part in output, f"{command}\nshould print {part!r}, printed:\n{output}"
            command, expected = line[2:], []

    def checkout(self) -> Path:
        """A clone of this repository, made at the first need. It has the environment that runs the tests."""
        clone = self.folder / "bus-core"
        if not (ROOT / ".git").exists():
            pytest.skip("this is no git checkout")
        if not clone.exists():
            self.run(f"git clone --quiet --no-local '{ROOT}' bus-core")
            (clone / ".venv").symlink_to(sys.prefix)
        return clone

    def run(self, command: str, where: Path | None = None) -> str:
        result = subprocess.run(
            ["bash", "-c", command],
            cwd=where or self.folder,
            env=self.env,
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        assert result.returncode == 0, f"{command}\n{result.stdout}{result.stderr}"
        return result.stdout + result.stderr

    def start(self, command: str) -> None:
        log = (self.folder / f"background-{len(self.running)}.log").open("wb")
        process = subprocess.Popen(
            ["bash", "-c", f"exec {command}"],
            cwd=self.folder,
            env=self.env,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        self.running.append(process)
        if "bus run" in command:
            wait_for(lambda: self.is_ready(process), _WAIT, command)

    def is_ready(self, process: subprocess.Popen[bytes]) -> bool:
        assert process.poll() is None, "it ended at once"
        with contextlib.suppress(OSError):
            return request(self.env["BUS_ADMIN_BIND"], "GET", "/readyz", body=None).status == 200
        return False

    def close(self) -> None:
        for process in self.running:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
        for process in self.running:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(10)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
