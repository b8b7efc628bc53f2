"""Command line: `bus run`. It serves one bus until a signal."""

from __future__ import annotations

import sys
from typing import Any

import click

from bus_core.cli.logs import set_up_logging
from bus_core.cli.options import read_assignments, read_settings, set_option, settings_options
from bus_core.host.run import run_bus
from bus_core.host.run_config import StoppedError, make_run_config
from bus_core.settings.problems import mistyped_variables
from bus_core.telemetry import get_logger

log = get_logger("bus_core.run")


@click.command()
@settings_options()
@set_option
def run(assignments: tuple[str, ...], **flags: Any) -> None:
    """Serve one bus until SIGTERM or Ctrl-C.

    Its channels receive events, and its subscriptions deliver them. After the signal it delivers the events that it
    has accepted, for at most --drain-timeout seconds.
    """
    settings = read_settings(flags)
    set_up_logging(settings.log_level, settings.log_format)
    for sentence in mistyped_variables():
        log.warning(sentence)
    try:
        config = make_run_config(settings, read_assignments(assignments))
    except StoppedError:
        return

    def announce(events: str, admin: str) -> None:
        log.info(
            "serving",
            bus=str(config.bus),
            driver=config.driver.name,
            roles=list(config.roles),
            events=events and f"http://{events}",
            admin=f"http://{admin}",
            workers=settings.workers,
            resources=str(config.origin),
        )

    sys.exit(run_bus(config, announce))
