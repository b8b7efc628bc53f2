"""The command `bus` in a process of its own for each call, without half a second of imports each: a process that has
imported everything forks one per request.

Run as a program it reads requests from its standard input, one JSON line each, and answers with one.
"""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.support import ROOT


@functools.cache
def _zygote() -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.zygote"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
    )


def run_bus(*arguments: str | Path, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """What a shell would see of `bus ARGUMENTS`. Not for commands that read standard input or stay."""
    zygote = _zygote()
    assert zygote.stdin is not None
    assert zygote.stdout is not None
    request = {"arguments": [str(argument) for argument in arguments], "env": dict(env or {})}
    zygote.stdin.write(json.dumps(request) + "\n")
    zygote.stdin.flush()
    answer = json.loads(zygote.stdout.readline())
    return subprocess.CompletedProcess(list(arguments), answer["code"], answer["stdout"], answer["stderr"])


def _serve() -> None:
    import bus_core.cli
    import bus_core.host.run  # what a command would import, already here

    for line in sys.stdin:
        request = json.loads(line)
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            child = os.fork()
            if child == 0:
                _become(request, out.fileno(), err.fileno(), bus_core.cli.main)
            code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            texts = []
            for file in (out, err):
                file.seek(0)
                texts.append(file.read().decode())
        print(json.dumps({"code": code, "stdout": texts[0], "stderr": texts[1]}), flush=True)


def _become(request: dict[str, Any], out: int, err: int, main: Any) -> None:
    with Path(os.devnull).open() as nothing:
        os.dup2(nothing.fileno(), 0)
    os.dup2(out, 1)
    os.dup2(err, 2)
    os.environ.update(request["env"])
    sys.path[:0] = [place for place in request["env"].get("PYTHONPATH", "").split(os.pathsep) if place]
    sys.argv = ["bus", *request["arguments"]]
    code: Any = 1
    try:
        main()
    except SystemExit as end:
        code = end.code or 0
    except BaseException:
        import traceback

        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    _serve()
