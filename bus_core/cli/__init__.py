"""Command line: the command `bus`, which turns each error into one sentence and an exit code."""

from __future__ import annotations

import errno
import sys

import click

from bus_core.cli.cluster import crds, manifests
from bus_core.cli.completion import completion
from bus_core.cli.demo import demo
from bus_core.cli.run import run
from bus_core.cli.send import send
from bus_core.cli.show import plugins, validate
from bus_core.model.errors import BusError, ConfigurationError

FAILURE = 1
USER_MISTAKE = 2
INTERRUPTED = 130

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="bus-core", prog_name="bus")
def cli() -> None:
    """Channels and subscriptions over HTTP, with a broker of your choice behind them."""


for command in (demo, run, send, validate, plugins, crds, manifests, completion):
    cli.add_command(command)


def main() -> None:
    """The entry point. Exit codes: 0 success, 1 failure, 2 the user's mistake, 130 interrupted before the end."""
    try:
        code = cli(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except ConfigurationError as error:
        click.echo(f"Error: {error}", err=True)
        code = USER_MISTAKE
    except BusError as error:
        click.echo(f"Error: {error}", err=True)
        code = FAILURE
    except (click.Abort, KeyboardInterrupt):
        code = INTERRUPTED
    except BrokenPipeError:
        # The reader closed the pipe. Without this assignment the interpreter would report an error at exit.
        sys.stdout = None
        code = FAILURE
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        sys.stdout = None
        click.echo(
            f"Error: the output could not be written: {error.strerror}; free some space, or write elsewhere", err=True
        )
        code = FAILURE
    sys.exit(code or 0)
