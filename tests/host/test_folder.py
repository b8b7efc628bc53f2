"""The folder is edited while the bus runs, and while it does not."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.packages import recording_package
from tests.support import BusProcess, Subscriber, bus, manifest, stored, subscriber, wait_for

FAST = ("--driver", "recording", "--deletion-grace", "0.2")


class Setup:
    """A folder, a state directory, and what the recording driver wrote."""

    def __init__(self, tmp_path: Path, sink: Subscriber) -> None:
        self.folder = tmp_path / "manifests"
        self.folder.mkdir()
        self.state = tmp_path / "state"
        self.record = tmp_path / "record"
        self.record.touch()
        self.sink = sink
        self.env = {"PYTHONPATH": str(recording_package(tmp_path / "site")), "RECORD": str(self.record)}

    def write(self, name: str, *objects: dict[str, Any]) -> None:
        (self.folder / name).write_text(yaml.safe_dump_all(objects))

    def quickstart(self) -> None:
        self.write("bus.yaml", manifest("Bus", "demo"))
        self.write("orders.yaml", manifest("Channel", "orders", bus="demo"))
        self.write("shipping.yaml", self.subscription("shipping"))

    def subscription(self, name: str) -> dict[str, Any]:
        return manifest("Subscription", name, channel="orders", subscriber=self.sink.url(name))

    def run(self, *arguments: str) -> Any:
        return bus(self.folder, self.state, *FAST, *arguments, env=self.env)

    def calls(self, hook: str) -> list[str]:
        """What a hook was called for, over all processes."""
        lines = (line.split() for line in self.record.read_text().splitlines())
        return [rest[0] if rest else "" for _, called, *rest in lines if called == hook]

    def kept(self, kind: str) -> list[str]:
        """The resources of a kind that the state still has; the state must be there."""
        found = stored(self.state)
        assert "Bus/demo" in found
        return [name for name in found if name.startswith(f"{kind}/")]

    def finalizers(self, resource: str) -> list[str]:
        return list(stored(self.state).get(resource, {}).get("metadata", {}).get("finalizers", ()))


@pytest.fixture
def setup(tmp_path: Path) -> Iterator[Setup]:
    with subscriber() as sink:
        made = Setup(tmp_path, sink)
        made.quickstart()
        yield made


def accepted(process: BusProcess, body: bytes) -> bool:
    return process.send("orders", body).status == 202


def test_a_new_subscription_gets_events_within_two_seconds(setup: Setup) -> None:
    with setup.run() as process:
        wait_for(lambda: "shipping" in setup.calls("subscribe"))
        began = time.monotonic()
        setup.write("late.yaml", setup.subscription("late"))
        wait_for(lambda: accepted(process, b"x") and setup.sink.bodies("late"), what="late gets an event")
        assert time.monotonic() - began < 2


def test_a_half_written_file_keeps_what_it_held_and_is_named_with_its_line(setup: Setup) -> None:
    with setup.run() as process:
        wait_for(lambda: "shipping" in setup.calls("subscribe"))
        half, _, _ = (setup.folder / "orders.yaml").read_text().rpartition("demo")
        (setup.folder / "orders.yaml").write_text(half + "[dem")
        place = f"orders.yaml:{len(half.splitlines())}"
        wait_for(lambda: process.says("a manifest is invalid", place), what="file and line in the log")
        (setup.folder / "shipping.yaml").write_text(
            typo := yaml.safe_dump(setup.subscription("shipping")).replace("subscriber:", "subscribr:")
        )
        line = 1 + next(n for n, text in enumerate(typo.splitlines()) if "subscribr" in text)
        wait_for(lambda: process.says("did you mean 'subscriber'", f"shipping.yaml:{line}"), what="the typo")
        assert accepted(process, b"still here")
        wait_for(lambda: b"still here" in setup.sink.bodies("shipping"))
        assert not setup.calls("unprovision")
        assert not setup.calls("unsubscribe")


def test_deleting_all_files_deletes_no_channel(setup: Setup) -> None:
    with setup.run() as process:
        wait_for(lambda: "shipping" in setup.calls("subscribe"))
        for path in setup.folder.glob("*.yaml"):
            path.unlink()
        setup.write("other.yaml")  # a sign of life: the folder was looked at after the deletions
        (setup.folder / "broken.yaml").write_text("kind: [")
        wait_for(lambda: process.says("broken.yaml"), what="the folder was looked at")
        (setup.folder / "broken.yaml").unlink()
        deadline = time.monotonic() + 1.5
        while time.monotonic() < deadline:
            assert accepted(process, b"x")
        assert not setup.calls("unprovision")


def test_with_allow_empty_an_empty_folder_deletes(setup: Setup) -> None:
    with setup.run("--allow-empty"):
        wait_for(lambda: "shipping" in setup.calls("subscribe"))
        for path in setup.folder.glob("*.yaml"):
            path.unlink()
        wait_for(lambda: setup.calls("unprovision") == ["orders"])
        assert setup.calls("unsubscribe") == ["shipping"]


def test_a_channel_removed_for_good_is_unprovisioned_once(setup: Setup) -> None:
    with setup.run() as process:
        wait_for(lambda: "shipping" in setup.calls("subscribe"))
        (setup.folder / "orders.yaml").unlink()
        (setup.folder / "shipping.yaml").unlink()
        wait_for(lambda: setup.calls("unprovision"))
        assert process.send("orders").status == 404
        assert process.stop() == 0
    assert setup.calls("unprovision") == ["orders"]
    assert setup.calls("unsubscribe") == ["shipping"]
    assert not setup.kept("Channel")


def test_what_is_removed_while_nobody_runs_is_undone_at_the_next_start(setup: Setup) -> None:
    with setup.run() as process:
        wait_for(lambda: "shipping" in setup.calls("subscribe"))
        wait_for(lambda: "bus-core/demo" in setup.finalizers("Subscription/shipping"))
        assert process.stop() == 0
    assert not setup.calls("unsubscribe"), "a stop is no unsubscribe"
    (setup.folder / "orders.yaml").unlink()
    (setup.folder / "shipping.yaml").unlink()
    with setup.run() as process:
        wait_for(lambda: setup.calls("unprovision"))
        wait_for(lambda: not setup.kept("Channel"), what="the channel is let go")
    assert setup.calls("unprovision") == ["orders"]
    assert setup.calls("unsubscribe") == ["shipping"]
    with setup.run():
        pass
    assert setup.calls("unprovision") == ["orders"]


def test_a_subscription_removed_while_nobody_runs_is_unsubscribed_once(setup: Setup) -> None:
    with setup.run() as process:
        wait_for(lambda: "bus-core/demo" in setup.finalizers("Subscription/shipping"))
        process.stop()
    (setup.folder / "shipping.yaml").unlink()
    with setup.run():
        wait_for(lambda: not setup.kept("Subscription"), what="it is let go")
    assert setup.calls("unsubscribe") == ["shipping"]
    assert not setup.calls("unprovision")


def test_what_may_not_change_is_refused_with_file_and_line(setup: Setup) -> None:
    with setup.run() as process:
        wait_for(lambda: "shipping" in setup.calls("subscribe"))
        setup.write("orders.yaml", manifest("Channel", "orders", bus="another"))
        wait_for(lambda: process.says("orders.yaml:", "cannot be changed"), what="the refusal")
        assert accepted(process, b"x")
        assert not setup.calls("unprovision")


def test_a_channel_replaced_under_its_name_is_made_anew(setup: Setup) -> None:
    with setup.run() as process:
        wait_for(lambda: "shipping" in setup.calls("subscribe"))
        whole = (setup.folder / "orders.yaml").read_text()
        (setup.folder / "orders.yaml").unlink()
        wait_for(lambda: process.send("orders").status == 404)
        (setup.folder / "orders.yaml").write_text(whole)
        wait_for(lambda: setup.calls("provision") == ["orders", "orders"], what="provisioned again")
        assert setup.calls("unprovision") == ["orders"]
        wait_for(lambda: accepted(process, b"new") and b"new" in setup.sink.bodies("shipping"))


@pytest.mark.covers("sync_bus")
def test_sync_bus_comes_first_and_again_when_the_bus_changes(setup: Setup) -> None:
    with setup.run():
        wait_for(lambda: "shipping" in setup.calls("subscribe"))
        assert setup.record.read_text().split()[1] == "sync_bus"
        parameters = {"channel": [{"name": "colour", "default": "red"}]}
        setup.write("bus.yaml", manifest("Bus", "demo", parameters=parameters))
        wait_for(lambda: setup.calls("sync_bus") == ["demo", "demo"])
        wait_for(lambda: setup.calls("provision") == ["orders", "orders"], what="its parameters have changed")
