"""Stopping has one budget of time: whatever hangs, the worker ends in order, before the server kills it."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.packages import make_package
from tests.support import Answer, BusProcess, Request, Response, bus, manifest, subscriber, wait_for

DRAIN = 2
GRACE = 10  # docs/delivery.md says so, and the server kills a worker then

HANGING = '''
"""A driver that hangs for a minute where the environment variable HANGS says so, and writes down what it does."""
import asyncio
import os
import time
from bus_core import hookimpl

HANGS = os.environ["HANGS"].split()


def record(what):
    with open(os.environ["RECORD"], "a") as file:
        file.write(what + "\\n")


def hang(where):
    if where in HANGS:
        record("hangs in " + where)
        time.sleep(60)


class Bus:
    api = 1

    def __init__(self, context):
        self._publish = context.publish
        context.exit_stack.callback(hang, "close")
        context.exit_stack.callback(record, "closed")

    @hookimpl
    def provision(self, channel):
        if channel.name == "slow":
            hang("provision")

    @hookimpl
    def unprovision(self, channel):
        pass

    @hookimpl
    def subscribe(self, channel, subscription):
        pass

    @hookimpl
    def unsubscribe(self, subscription):
        pass


class PlainBus(Bus):
    @hookimpl
    def receive(self, channel, message):
        if message.payload == b"hang":
            hang("receive")
        self._publish(channel, message)


class AsyncBus(Bus):
    @hookimpl
    async def receive(self, channel, message):
        if message.payload == b"hang" and "receive" in HANGS:
            record("hangs in receive")
            await asyncio.sleep(60)
        self._publish(channel, message)
'''


class Hanging:
    """A bus on a driver that hangs, with a channel `orders` and a subscription; `slow` is a channel that hangs."""

    def __init__(self, tmp_path: Path, hangs: str, *, driver: str = "AsyncBus", subscriber_url: str) -> None:
        self.record = tmp_path / "record"
        self.record.touch()
        self.folder = tmp_path / "manifests"
        self.folder.mkdir()
        objects = [
            manifest("Bus", "demo"),
            manifest("Channel", "orders", bus="demo"),
            manifest("Subscription", "one", channel="orders", subscriber=subscriber_url),
        ]
        (self.folder / "all.yaml").write_text(yaml.safe_dump_all(objects))
        site = make_package(tmp_path / "site", "hanging-bus", HANGING, driver="hanging", value=f"hanging_bus:{driver}")
        self.env = {"PYTHONPATH": str(site), "RECORD": str(self.record), "HANGS": hangs}
        self.options = ("--driver", "hanging", "--drain-timeout", str(DRAIN), "--log-level", "debug")
        self.answers: list[Response] = []
        self._senders: list[threading.Thread] = []

    def hang_in_receive(self, process: BusProcess) -> None:
        sender = threading.Thread(target=lambda: self.answers.append(process.send("orders", b"hang")))
        sender.start()
        self._senders.append(sender)
        self.wait_recorded("hangs in receive")

    def hang_in_provision(self) -> None:
        (self.folder / "slow.yaml").write_text(yaml.safe_dump(manifest("Channel", "slow", bus="demo")))
        self.wait_recorded("hangs in provision")

    def wait_recorded(self, what: str) -> None:
        wait_for(lambda: what in self.record.read_text().splitlines(), what=what)

    def stop(self, process: BusProcess) -> float:
        """Stop it; the seconds that it took. It must end by itself, with 0, and in order."""
        began = time.monotonic()
        assert process.stop(signal.SIGTERM, timeout=DRAIN + GRACE + 10) == 0, process.log
        seconds = time.monotonic() - began
        for sender in self._senders:
            sender.join()
        print(f"ended {seconds:.1f} s after SIGTERM")
        assert seconds < DRAIN + GRACE
        assert len(process.says('"stopping"')) == 1
        assert len(process.says('"stopped"')) == 1
        assert "closed" in self.record.read_text().splitlines(), "the driver's exit stack was not closed"
        return seconds


@pytest.fixture
def sink() -> Iterator[str]:
    with subscriber() as server:
        yield server.url()


def left_behind(process: BusProcess) -> list[str]:
    """The stages that the worker says it left behind, in its last line."""
    (line,) = process.says('"stopped"')
    return [str(name) for name in yaml.safe_load(line)["left_behind"]]


@pytest.mark.parametrize("driver", ["AsyncBus", "PlainBus"])
def test_an_event_that_is_not_received_in_time_is_answered_503(tmp_path: Path, sink: str, driver: str) -> None:
    hanging = Hanging(tmp_path, "receive", driver=driver, subscriber_url=sink)
    with bus(hanging.folder, tmp_path / "state", *hanging.options, env=hanging.env) as process:
        process.wait_served("orders")
        hanging.hang_in_receive(process)
        assert hanging.stop(process) < 6, "the stages after it have nothing to wait for"
        (answer,) = hanging.answers
        assert answer.status == 503
        assert int(answer.headers["retry-after"]) >= 1
        assert left_behind(process) == ["receive"]
        assert process.says("not received in time", '"cancelled": 1')
        assert process.says("stage of the shutdown ended", '"driver"')


def test_an_event_that_is_received_in_time_is_answered_202(tmp_path: Path) -> None:
    """The stage waits: it does not cancel at once."""
    source = HANGING.replace("await asyncio.sleep(60)", "await asyncio.sleep(1)")
    with subscriber() as server:
        hanging = Hanging(tmp_path, "receive", subscriber_url=server.url())
        (tmp_path / "site" / "hanging_bus.py").write_text(source)
        with bus(hanging.folder, tmp_path / "state", *hanging.options, env=hanging.env) as process:
            process.wait_served("orders")
            hanging.hang_in_receive(process)
            hanging.stop(process)
            assert [answer.status for answer in hanging.answers] == [202]
            assert left_behind(process) == []
        assert server.bodies() == [b"hang"], "it was accepted, so it is delivered"


def test_a_hook_that_does_not_end_is_left_behind(tmp_path: Path) -> None:
    with subscriber() as server:
        hanging = Hanging(tmp_path, "provision", subscriber_url=server.url())
        with bus(hanging.folder, tmp_path / "state", *hanging.options, env=hanging.env) as process:
            process.wait_served("orders")
            hanging.hang_in_provision()
            assert process.send("orders", b"accepted").status == 202
            assert hanging.stop(process) < 6
            assert left_behind(process) == ["monitor"]
            assert process.says("is abandoned", '"stage": "monitor"', '"driver": "hanging"')
        assert server.bodies() == [b"accepted"]


def test_a_driver_that_does_not_close_is_left_behind(tmp_path: Path, sink: str) -> None:
    hanging = Hanging(tmp_path, "close", subscriber_url=sink)
    with bus(hanging.folder, tmp_path / "state", *hanging.options, env=hanging.env) as process:
        process.wait_served("orders")
        hanging.stop(process)
        assert left_behind(process) == ["driver"]
        assert process.says("is abandoned", '"stage": "driver"')


def test_when_everything_hangs_it_still_ends_in_time(tmp_path: Path) -> None:
    release = threading.Event()

    def hang(_: Request) -> Answer:
        release.wait(60)
        return Answer()

    with subscriber(hang) as server:
        hanging = Hanging(tmp_path, "receive provision close", driver="PlainBus", subscriber_url=server.url())
        with bus(hanging.folder, tmp_path / "state", *hanging.options, env=hanging.env) as process:
            process.wait_served("orders")
            assert process.send("orders", b"accepted").status == 202
            wait_for(lambda: server.requests)
            hanging.hang_in_receive(process)
            hanging.hang_in_provision()
            hanging.stop(process)
            assert left_behind(process) == ["receive", "monitor", "driver"]
            (line,) = process.says('"stopped"')
            assert yaml.safe_load(line)["given_up"] == 1
            assert [answer.status for answer in hanging.answers] == [503]
        release.set()
