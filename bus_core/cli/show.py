"""Command line: `bus plugins`, which lists the installed drivers, and `bus validate`, which checks manifests."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import click

from bus_core.cli.options import output_option
from bus_core.control_plane.sources.folder.check import check_manifests
from bus_core.driver.loader import InstalledDriver, installed_drivers


@click.command()
@output_option
def plugins(output: str) -> None:
    """List the installed drivers, and why the host would refuse any."""
    drivers = installed_drivers()
    if output == "json":
        click.echo(json.dumps([dataclasses.asdict(driver) for driver in drivers], indent=2))
        return
    if not drivers:
        click.echo("no driver is installed; try: pip install stub-bus")
    for driver in drivers:
        _describe(driver)


def _describe(driver: InstalledDriver) -> None:
    click.echo(f"{driver.name}  ({driver.package} {driver.version})  {driver.summary}")
    if driver.problem:
        click.echo(f"  refused: {driver.problem}")
    for parameter in driver.parameters:
        value = "required" if parameter.default is None else f"default {parameter.default!r}"
        click.echo(f"  {parameter.scope} parameter {parameter.name} ({value}): {parameter.description}")


@click.command()
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="PATH...")
@output_option
def validate(paths: tuple[Path, ...], output: str) -> None:
    """Check the schema of manifests, and the references between resources."""
    keys, errors = check_manifests(paths)
    if output == "json":
        report: dict[str, Any] = {
            "resources": [str(key) for key in keys],
            "errors": [
                {"path": error.path, "line": error.line, "field": error.field, "problem": error.problem}
                for error in errors
            ],
        }
        click.echo(json.dumps(report, indent=2))
    else:
        for error in errors:
            click.echo(str(error), err=True)
        click.echo(f"{len(keys)} resources, {len(errors)} errors")
    if errors:
        raise SystemExit(2)
