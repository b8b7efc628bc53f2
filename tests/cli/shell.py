"""The command `bus` as a shell starts it, in a process of its own."""

from __future__ import annotations

import os
import subprocess

from tests.support import BUS


def run(*arguments: str, stdin: str = "", **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [BUS, *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, **env},
    )
