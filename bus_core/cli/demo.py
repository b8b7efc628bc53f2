"""Command line: `bus demo`. It runs a bus and three subscribers on this machine, and sends them events."""

from __future__ import annotations

import contextlib
import shutil
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

import bus_core
from bus_core import telemetry
from bus_core.cli.event import make_event
from bus_core.cli.logs import set_up_logging
from bus_core.cli.options import read_assignments, read_settings, set_option
from bus_core.cli.subscriber import Arrival, Subscriber
from bus_core.data_plane.dispatch import MessageDispatcher
from bus_core.host.host import Host
from bus_core.host.run import serve_bus
from bus_core.host.run_config import make_run_config
from bus_core.model.errors import BusError

BUS = "default/demo"
ANSWERING = "billing"
EXPECTED = {"shipping": "orders", "billing": "orders", "mailbox": "receipts"}
"""The channel of each subscriber in examples/quickstart."""

EVENTS_PORT, ADMIN_PORT, SUBSCRIBER_PORT = 8080, 9090, 8090
_FEW = 3
_PATIENCE = 20.0


class DemoError(BusError):
    """The demo failed."""


@click.command()
@click.option("--once", is_flag=True, help="Send a few events, check that all arrive, and end.")
@click.option("--driver", default="stub", show_default=True, metavar="NAME", help="The driver behind the bus.")
@set_option
def demo(once: bool, driver: str, assignments: tuple[str, ...]) -> None:
    """Run a bus and its subscribers on this machine, and send a few events.

    Each event of a channel reaches every subscription, and a reply becomes a new event. Without a terminal the demo
    runs as with --once.
    """
    once = once or not (sys.stdin.isatty() and sys.stdout.isatty())
    set_up_logging("warning")
    telemetry.enable()
    seen = _Seen()
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bus-demo-")))
        subscriber = Subscriber(f"127.0.0.1:{_free(SUBSCRIBER_PORT)}", {ANSWERING}, seen.arrived)
        stack.callback(subscriber.close)
        manifests = _copy_quickstart(folder / "manifests", subscriber.port)
        settings = read_settings(
            {
                "bus": BUS,
                "driver": driver,
                "manifests": manifests,
                "state_dir": folder / "state",
                "bind": f"127.0.0.1:{_free(EVENTS_PORT)}",
                "admin_bind": f"127.0.0.1:{_free(ADMIN_PORT)}",
                "role": "all",
            }
        )
        address = stack.enter_context(_running(settings, assignments))
        click.echo(f"a bus on driver {driver!r}, channels orders and receipts, subscribers {', '.join(EXPECTED)}\n")
        _send_few(address, seen)
        if not once:
            _stay(address)


def _stay(address: str) -> None:
    port = address.rpartition(":")[2]
    click.echo(
        "\nsend an event from a second terminal:\n\n"
        f"  curl -i http://orders.default.localhost:{port}/ -H 'content-type: text/plain' -d 'hello'\n\n"
        "Ctrl-C ends the demo.\n"
    )
    with contextlib.suppress(KeyboardInterrupt):
        threading.Event().wait()
    click.echo("\nstopping")


def _send_few(address: str, seen: _Seen) -> None:
    dispatcher = MessageDispatcher(local=lambda *_: (f"http://{address}/", "orders.default"))
    try:
        route = dispatcher.route("orders")
        for number in range(1, _FEW + 1):
            event = make_event(f'{{"order": {number}}}'.encode(), type_="com.example.order", source="/demo")
            click.echo(f"POST orders       {event.payload.decode()}")
            dispatcher.send(route, event)
            seen.expect(event.headers["ce-id"])
    finally:
        dispatcher.close()
    missing = seen.missing(_PATIENCE)
    if missing:
        raise DemoError(f"these did not arrive within {_PATIENCE:g} s: {', '.join(missing)}")
    click.echo(f"\nall {_FEW} events reached every subscription, and the replies of {ANSWERING} reached mailbox")


class _Seen:
    """The events that arrived, and the events that should arrive. Thread-safe."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._arrived: set[tuple[str, str]] = set()
        self._expected: set[tuple[str, str]] = set()

    def arrived(self, arrival: Arrival) -> None:
        channel = EXPECTED.get(arrival.subscriber, "?")
        click.echo(f"  {channel:8} → {arrival.subscriber:9} {arrival.data.decode(errors='replace')[:80]}")
        with self._changed:
            self._arrived.add((arrival.subscriber, arrival.id))
            self._changed.notify_all()

    def expect(self, event_id: str) -> None:
        with self._changed:
            for subscriber, channel in EXPECTED.items():
                self._expected.add((subscriber, event_id if channel == "orders" else f"reply-{event_id}"))

    def missing(self, patience: float) -> list[str]:
        with self._changed:
            self._changed.wait_for(lambda: self._expected <= self._arrived, patience)
            return [f"{event} at {subscriber}" for subscriber, event in sorted(self._expected - self._arrived)]


@contextlib.contextmanager
def _running(settings: Any, assignments: tuple[str, ...]) -> Iterator[str]:
    """Run the bus on its own thread until it is ready; yield its address for events."""
    config = make_run_config(settings, read_assignments(assignments))
    stop = threading.Event()
    started: list[tuple[Host, str]] = []
    failed: list[BaseException] = []

    def serve() -> None:
        try:
            serve_bus(config, stop, lambda host, events, _: started.append((host, events)))
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=serve, name="bus")
    thread.start()
    try:
        deadline = time.monotonic() + _PATIENCE
        while not (started and _is_ready(started[0][0])):
            if failed:
                raise failed[0]
            if time.monotonic() > deadline:
                raise DemoError(f"the bus was not ready within {_PATIENCE:g} s: {'; '.join(_problems(started))}")
            time.sleep(0.02)
        yield started[0][1]
    finally:
        stop.set()
        thread.join()


def _is_ready(host: Host) -> bool:
    if host.problems():
        return False
    told = [host.monitor.subscription(name, "default") for name in EXPECTED]
    return None not in told


def _problems(started: list[tuple[Host, str]]) -> list[str]:
    return (started[0][0].problems() or ["not every subscription is served"]) if started else ["it did not start"]


def _copy_quickstart(target: Path, port: int) -> Path:
    """The manifests of examples/quickstart, which the wheel carries inside the package."""
    package = Path(bus_core.__file__).parent
    candidates = [package / "examples" / "quickstart", package.parent / "examples" / "quickstart"]
    source = next((path for path in candidates if path.is_dir()), None)
    if source is None:
        raise DemoError("examples/quickstart is missing from this installation; reinstall bus-core")
    shutil.copytree(source, target)
    if port != SUBSCRIBER_PORT:
        for path in target.glob("*.yaml"):
            path.write_text(path.read_text().replace(f":{SUBSCRIBER_PORT}/", f":{port}/"))
    return target


def _free(port: int) -> int:
    """The port, or 0 (any port) if another program uses it."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return 0
    return port
