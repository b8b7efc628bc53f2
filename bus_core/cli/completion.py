"""Command line: `bus completion`. It prints the script that lets a shell complete commands and options."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

PROGRAM = "bus"
VARIABLE = "_BUS_COMPLETE"
"""The environment variable that makes `bus` print completions. Click derives its name from the program's name."""


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the completion script of a shell.

    For bash, add this line to ~/.bashrc: source <(bus completion bash)
    """
    made = get_completion_class(shell)
    assert made is not None, "click knows every shell that the argument allows"
    click.echo(made(context.find_root().command, {}, PROGRAM, VARIABLE).source())
