"""Buses to measure: real processes on manifests of their own."""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import yaml

from tests.support import BUS, BusProcess, manifest, wait_for

CHANNEL = "orders"
HOST = f"{CHANNEL}.default"


@contextlib.contextmanager
def host(
    driver: str,
    subscriptions: int,
    url: Callable[[str], str],
    *options: str,
    channels: int = 1,
    suffix: str = "",
    program: Path = BUS,
    **arguments: str,
) -> Iterator[BusProcess]:
    """A bus with so many channels, and so many subscriptions on each; the first channel is `CHANNEL`.

    Args:
        suffix: of the subscriptions' names. program: the `bus` to run. arguments: of the subscriptions.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "manifests"
        folder.mkdir()
        listed = [{"name": name, "value": value} for name, value in arguments.items()]
        objects = [manifest("Bus", "bench")]
        for number in range(channels):
            channel = CHANNEL if number == 0 else f"{CHANNEL}-{number}"
            objects.append(manifest("Channel", channel, bus="bench"))
            for index in range(subscriptions):
                spec = {"channel": channel, "subscriber": url(f"s{number}-{index}"), "arguments": listed}
                objects.append(manifest("Subscription", f"{channel}-s{index}{suffix}", **spec))
        (folder / "all.yaml").write_text(yaml.safe_dump_all(objects))
        process = BusProcess(
            folder, Path(name) / "state", "--driver", driver, *options, bus="default/bench", program=program
        )
        try:
            process.wait_ready(60)
            wait_for(
                lambda: len(process.says('"serving"', '"channel"')) >= channels * process.workers,
                180,
                "every channel serves",
            )
            yield process
        finally:
            process.stop(timeout=60)


def drained(count: Callable[[], int], expected: int, timeout: float = 60.0) -> int:
    """Wait until so many have arrived, and say how many did."""
    with contextlib.suppress(AssertionError):
        wait_for(lambda: count() >= expected, timeout)
    return count()


def quiet(count: Callable[[], int]) -> int:
    """Wait until nothing arrives any more, for instance of the load before; what has arrived."""
    last, since = count(), time.monotonic()
    while time.monotonic() - since < 0.5:
        time.sleep(0.03)
        now = count()
        if now != last:
            last, since = now, time.monotonic()
    return last
