"""The stub driver behind a real bus: each test fails when its hook does nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.support import BusProcess, Subscriber, bus, manifest, subscriber, wait_for


@pytest.fixture
def sink() -> Iterator[Subscriber]:
    with subscriber() as server:
        yield server


@pytest.fixture
def folder(tmp_path: Path, sink: Subscriber) -> Path:
    made = tmp_path / "manifests"
    made.mkdir()
    parameters = {"channel": [{"name": "colour", "default": "red"}]}
    write(made / "a-bus.yaml", manifest("Bus", "demo", driver="stub", parameters=parameters))
    write(made / "channel.yaml", manifest("Channel", "orders", bus="demo"))
    write(made / "subscription.yaml", manifest("Subscription", "one", channel="orders", subscriber=sink.url()))
    return made


@pytest.fixture
def running(folder: Path, tmp_path: Path) -> Iterator[BusProcess]:
    with bus(folder, tmp_path / "state", "--deletion-grace", "0.1", "--log-level", "debug") as process:
        yield process


def write(path: Path, *objects: dict[str, object]) -> None:
    path.write_text(yaml.safe_dump_all(objects))


@pytest.mark.covers("provision")
def test_provision_says_which_channel_and_with_what(running: BusProcess) -> None:
    line = wait_for(lambda: running.says('"event": "provisioned"', "default/orders"), what="the log line")[0]
    assert '"parameters": {"colour": "red"}' in line


@pytest.mark.covers("unprovision")
def test_unprovision_says_which_channel(running: BusProcess, folder: Path) -> None:
    wait_for(lambda: running.says('"event": "provisioned"'))
    (folder / "channel.yaml").unlink()
    assert wait_for(lambda: running.says('"event": "unprovisioned"', "default/orders"))


@pytest.mark.covers("subscribe")
def test_subscribe_says_which_subscription(running: BusProcess) -> None:
    assert wait_for(lambda: running.says('"event": "subscribed"', "default/orders", "default/one"))


@pytest.mark.covers("unsubscribe")
def test_unsubscribe_says_which_subscription(running: BusProcess, folder: Path) -> None:
    wait_for(lambda: running.says('"event": "subscribed"'))
    (folder / "subscription.yaml").unlink()
    assert wait_for(lambda: running.says('"event": "unsubscribed"', "default/orders", "default/one"))


@pytest.mark.covers("receive")
def test_receive_hands_the_event_to_every_subscription(running: BusProcess, sink: Subscriber) -> None:
    running.wait_served("orders")
    assert running.send("orders", b"an event").status == 202
    assert wait_for(lambda: sink.bodies() == [b"an event"])
