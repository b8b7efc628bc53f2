"""Command line: `bus send`. It sends CloudEvents to a channel."""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import click
from rich.console import Console
from rich.progress import track

from bus_core.cli.event import make_event
from bus_core.cli.options import output_option
from bus_core.control_plane.crds.validation import DNS_LABEL
from bus_core.data_plane.dispatch import FRAMING_HEADERS, MessageDispatcher, encode
from bus_core.model.errors import (
    ConfigurationError,
    DestinationError,
    DispatchError,
    InvalidMessageError,
    ResponseError,
)
from bus_core.model.message import Message
from bus_core.model.references import DEFAULT_NAMESPACE

DEFAULT_TO = "http://127.0.0.1:8080/"


@click.command()
@click.argument("channel", metavar="[NAMESPACE/]CHANNEL")
@click.option("--to", default=DEFAULT_TO, show_default=True, metavar="URL", help="Address of the bus.")
@click.option("--data", metavar="TEXT", help="The event's data; - reads standard input.")
@click.option("--file", "file", type=click.Path(path_type=Path), help="Read the event's data from a file.")
@click.option("--type", "type_", default="com.example.event", show_default=True, help="CloudEvents type.")
@click.option("--source", default="/bus/send", show_default=True, help="CloudEvents source.")
@click.option("--header", "headers", multiple=True, metavar="K=V", help="An additional header; repeatable.")
@click.option("--count", default=1, show_default=True, type=click.IntRange(1), help="Number of events to send.")
@click.option(
    "--rate", type=click.FloatRange(min=0, min_open=True), help="Events per second [default: as fast as possible]."
)
@output_option
def send(
    channel: str,
    to: str,
    data: str | None,
    file: Path | None,
    type_: str,
    source: str,
    headers: tuple[str, ...],
    count: int,
    rate: float | None,
    output: str,
) -> None:
    """Send CloudEvents to a channel, and count the answers. The exit code is 1 unless the bus accepts all.

    CHANNEL.NAMESPACE, the form of the Host header, also names a channel.
    """
    name, namespace = _channel(channel)
    payload = _payload(data, file)
    extra = dict(_header(text) for text in headers)
    host = f"{name}.{namespace}"
    dispatcher = MessageDispatcher(local=lambda *_: (to, host))
    try:
        route = dispatcher.route(name, namespace)
        _check(make_event(payload, type_=type_, source=source, headers=extra))
    except DestinationError as error:
        raise ConfigurationError(f"{error}; write --to http://HOST:PORT/") from None
    answers: Counter[str] = Counter()
    problem = ""
    try:
        for _ in _paced(count, rate):
            try:
                # Encoded here, so that the dispatcher sends every header. The bus selects the headers to forward.
                event = encode(make_event(payload, type_=type_, source=source, headers=extra))
                reply = dispatcher.send(route, event)
                answers[str(reply.status)] += 1
            except ResponseError as error:
                answers[str(error.status)] += 1
                problem = f"{error.status}: {error.body.decode(errors='replace').strip()}"
            except DispatchError as error:
                answers["no answer"] += 1
                problem = str(error)
    finally:
        dispatcher.close()
    if output == "json":
        click.echo(json.dumps({"channel": host, "answers": dict(answers), "problem": problem}))
    else:
        click.echo(", ".join(f"{number} × {answer}" for answer, number in sorted(answers.items())))
        if problem:
            click.echo(problem, err=True)
    if answers["202"] != count:
        raise SystemExit(1)


def _channel(text: str) -> tuple[str, str]:
    """Name and namespace of a channel."""
    if "/" in text or "." not in text:
        namespace, slash, name = text.lower().rpartition("/")
    else:
        name, slash, namespace = text.lower().partition(".")
    parts = [name, namespace] if slash else [name]
    if not all(len(part) <= 63 and DNS_LABEL.fullmatch(part) for part in parts):
        raise ConfigurationError(
            f"{text!r} does not name a channel: write [NAMESPACE/]CHANNEL or CHANNEL.NAMESPACE, such as default/orders"
        )
    return name, namespace or DEFAULT_NAMESPACE


def _check(event: Message) -> None:
    """Refuse an invalid header, or an empty CloudEvents attribute, before the first event is sent."""
    try:
        encode(event)
    except InvalidMessageError as error:
        raise ConfigurationError(f"{error}; nothing was sent") from None
    for name in ("ce-type", "ce-source", "ce-id", "ce-specversion"):
        if not event.headers[name].strip():
            raise ConfigurationError(f"{name} is empty, but every CloudEvent needs it: set a value; nothing was sent")


def _paced(count: int, rate: float | None) -> Iterator[int]:
    """Count up to `count` at the rate. Show a progress bar for several events on a terminal."""
    console = Console(stderr=True)
    numbers = track(range(count), "sending", console=console) if count > 1 and console.is_terminal else range(count)
    began = time.monotonic()
    for number in numbers:
        if rate is not None:
            time.sleep(max(0.0, began + number / rate - time.monotonic()))
        yield number


def _payload(data: str | None, file: Path | None) -> bytes:
    if data is not None and file is not None:
        raise ConfigurationError("give --data or --file, not both")
    if file is not None:
        try:
            return file.read_bytes()
        except OSError as error:
            raise ConfigurationError(f"--file {file} cannot be read: {error.strerror}") from None
    if data == "-":
        return sys.stdin.buffer.read()
    return (data if data is not None else '{"hello": "world"}').encode()


def _header(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise ConfigurationError(f"--header {text!r} cannot be read; write --header NAME=VALUE")
    if name.lower() in FRAMING_HEADERS:
        raise ConfigurationError(f"--header {text!r} belongs to the connection, not to the event; remove it")
    return name, value
