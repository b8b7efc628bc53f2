"""The parameters in force, kept by a folder's state: they are known after a restart, as in a cluster."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml

from bus_core import BusReference, ManifestSource, Monitor, MonitorEventHandlerFuncs, PermanentError
from bus_core.model.parameters import ResolvedParameters
from bus_core.model.references import ChannelReference
from bus_core.model.resources import Channel
from tests.support import manifest, wait_for


def put(folder: Path, colour: str) -> None:
    spec = {"bus": "demo", "arguments": [{"name": "colour", "value": colour}]}
    parameters = {"channel": [{"name": "colour", "default": "none"}]}
    objects = [manifest("Bus", "demo", parameters=parameters), manifest("Channel", "orders", **spec)]
    (folder / "all.new").write_text(yaml.safe_dump_all(objects))
    (folder / "all.new").rename(folder / "all.yaml")


def provision(channel: Channel, parameters: ResolvedParameters) -> None:
    if parameters["colour"] == "blue":
        raise PermanentError("there is no blue")


@contextmanager
def running(folder: Path, state: Path) -> Iterator[Monitor]:
    source = ManifestSource(folder, BusReference("demo"), state_dir=state)
    handlers = MonitorEventHandlerFuncs(provision_func=provision, subscribe_func=print)
    monitor, stop = Monitor("test", handler=handlers, source=source), threading.Event()
    thread = threading.Thread(target=monitor.run, args=("default", "demo", 2, stop))
    thread.start()
    try:
        yield monitor
    finally:
        stop.set()
        thread.join(10)
        assert not thread.is_alive()


def colour(monitor: Monitor) -> str:
    return monitor.lookup(ChannelReference("orders")).parameters.get("colour", "")


def refused(monitor: Monitor) -> bool:
    found = monitor.channel("orders", "default")
    condition = found.condition("Provisioned") if found is not None else None
    return condition is not None and condition.reason == "UpdateFailed"


def test_a_refused_edit_does_not_reach_the_events_also_after_a_restart(tmp_path: Path) -> None:
    folder, state = tmp_path / "manifests", tmp_path / "state"
    folder.mkdir()
    put(folder, "red")
    with running(folder, state) as monitor:
        wait_for(lambda: colour(monitor) == "red")
        put(folder, "blue")
        wait_for(lambda: refused(monitor))
        assert colour(monitor) == "red"
    with running(folder, state) as monitor:
        wait_for(lambda: colour(monitor))
        assert colour(monitor) == "red"
        put(folder, "green")
        wait_for(lambda: colour(monitor) == "green")
