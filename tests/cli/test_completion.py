"""`bus completion`: bash completes with the script, and every shell gets one."""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest

from tests.support import BUS
from tests.zygote import run_bus


def completed(*words: str) -> list[str]:
    """What bash offers after `words`, of which the last is not finished."""
    script = (
        f"source <('{BUS}' completion bash)\n"
        'COMP_WORDS=("$@")\n'
        "COMP_CWORD=$(($# - 1))\n"
        # It is called as bash calls it: with the command's name.
        f"_bus_completion '{BUS}'\n"
        'printf "%s\\n" "${COMPREPLY[@]}"\n'
    )
    result = subprocess.run(
        ["bash", "--norc", "-c", script, "bash", *words],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "PATH": f"{BUS.parent}:{os.environ['PATH']}"},
    )
    assert result.stderr == ""
    return result.stdout.split()


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is missing")
@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["bus", "c"], ["completion", "crds"]),
        (["bus", "run", "--dr"], ["--driver", "--drain-timeout"]),
        (["bus", "run", "--role", ""], ["all", "provisioner", "dispatcher"]),
        (["bus", "completion", "b"], ["bash"]),
        (["bus", "nothing-like-it"], []),
    ],
)
def test_bash_completes(words: list[str], offered: list[str]) -> None:
    assert sorted(completed(*words)) == sorted(offered)


@pytest.mark.parametrize(("shell", "holds"), [("bash", "complete -"), ("zsh", "compdef"), ("fish", "complete --")])
def test_each_shell_gets_a_script_for_bus(shell: str, holds: str) -> None:
    result = run_bus("completion", shell)
    assert result.returncode == 0
    assert holds in result.stdout
    assert "_BUS_COMPLETE" in result.stdout


def test_another_shell_is_refused() -> None:
    result = run_bus("completion", "tcsh")
    assert result.returncode == 2
    assert "bash" in result.stderr
