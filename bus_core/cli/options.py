"""Command line: click options, generated from the declaration of the settings in `bus_core.settings.settings`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin

import click
from pydantic.fields import FieldInfo

from bus_core.model.errors import ConfigurationError
from bus_core.settings.resolve import load_settings
from bus_core.settings.settings import ENV_PREFIX, Settings, flag_name

F = TypeVar("F", bound=Callable[..., Any])

_NO_FLAG = {"namespace", "name"}  # BUS_NAMESPACE and BUS_NAME together mean the same as --bus

output_option = click.option(
    "-o", "--output", type=click.Choice(["text", "json"]), default="text", show_default=True, help="Output format."
)

set_option = click.option(
    "--set",
    "assignments",
    metavar="DRIVER.FIELD=VALUE",
    multiple=True,
    help="A setting of the driver; repeatable.",
)


def settings_options(*names: str) -> Callable[[F], F]:
    """Options for the named settings, or for all. A missing flag does not override environment or file."""

    def decorate(function: F) -> F:
        chosen = names or tuple(name for name in Settings.model_fields if name not in _NO_FLAG)
        for name in reversed(chosen):
            function = _option(name, Settings.model_fields[name])(function)
        return function

    return decorate


def read_settings(flags: dict[str, Any]) -> Settings:
    """Settings from the given flags, the environment and the settings file."""
    return load_settings({name: value for name, value in flags.items() if value is not None})


def read_assignments(assignments: tuple[str, ...]) -> dict[str, dict[str, str]]:
    """Group the assignments `DRIVER.FIELD=VALUE` by driver and field.

    Raises:
        ConfigurationError: an assignment has another form.
    """
    found: dict[str, dict[str, str]] = {}
    for assignment in assignments:
        key, equals, value = assignment.partition("=")
        driver, dot, name = key.partition(".")
        if not (equals and dot and driver and name):
            raise ConfigurationError(f"--set {key} cannot be read; write --set DRIVER.FIELD=VALUE")
        found.setdefault(driver, {})[name] = value
    return found


def _option(name: str, info: FieldInfo) -> Callable[[F], F]:
    kind = info.annotation
    flag = flag_name(name)
    default = "" if info.default in (None, "", False) else f" [default: {info.default}]"
    text = f"{info.description}{default} [{ENV_PREFIX}{name.upper()}]"
    if kind is bool:
        return click.option(f"{flag}/--no-{flag[2:]}", name, default=None, help=text)
    return click.option(flag, name, type=_type(kind), default=None, metavar=_metavar(name, kind), help=text)


def _type(kind: Any) -> Any:
    if get_origin(kind) is Literal:
        return click.Choice(get_args(kind))
    if kind in (int, float):
        return kind
    return click.Path(path_type=Path) if Path in get_args(kind) else str


def _metavar(name: str, kind: Any) -> str | None:
    known = {"bus": "[NAMESPACE/]NAME", "bind": "HOST:PORT", "admin_bind": "HOST:PORT", "driver": "NAME"}
    if name in known:
        return known[name]
    if Path in get_args(kind):
        return "FILE" if name in ("config", "kubeconfig") else "DIR"
    return "N" if kind in (int, float) else None
