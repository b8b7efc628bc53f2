"""More than can be delivered: who is refused, for how long, and who does not notice."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.host.load import Load
from tests.support import Answer, BusProcess, Request, Subscriber, bus, free_port, manifest, subscriber, wait_for

STALL_AFTER = 2.0
LIMITS = ("--driver", "stub", "--lane-events", "20", "--stall-after", str(STALL_AFTER), "--drain-timeout", "0")


def write(folder: Path, *subscriptions: dict[str, Any]) -> Path:
    folder.mkdir()
    channels = {subscription["spec"]["channel"] for subscription in subscriptions}
    objects = [manifest("Bus", "demo"), *(manifest("Channel", name, bus="demo") for name in sorted(channels))]
    (folder / "all.yaml").write_text(yaml.safe_dump_all([*objects, *subscriptions]))
    return folder


def dropped(process: BusProcess, subscription: str) -> float:
    reasons = ("stalled", "unavailable", "sink_full")
    return sum(
        process.metric("bus_deliveries_dropped_total", subscription=subscription, reason=reason) for reason in reasons
    )


@pytest.mark.parametrize("with_sink", [False, True])
def test_one_of_three_is_dead(tmp_path: Path, with_sink: bool) -> None:
    with subscriber() as good, subscriber() as sink:
        delivery = {"delivery": {"retry": 50, "timeout": "PT1S"}}
        if with_sink:
            delivery["delivery"]["deadLetterSink"] = sink.url()
        folder = write(
            tmp_path / "manifests",
            manifest("Subscription", "a", channel="orders", subscriber=good.url("a")),
            manifest(
                "Subscription", "dead", channel="orders", subscriber=f"http://127.0.0.1:{free_port()}/", **delivery
            ),
            manifest("Subscription", "z", channel="orders", subscriber=good.url("z")),
        )
        with bus(folder, tmp_path / "state", *LIMITS) as process:
            process.wait_served("orders")
            with Load(process.events, "orders", pause=0.005) as load:
                wait_for(lambda: load.refused, what="the lane is full")
                began, before = time.monotonic(), len(load.accepted)
                wait_for(lambda: len(load.accepted) > before + 50, what="the dead one is shed")
                assert time.monotonic() - began < STALL_AFTER + 2
                refusals = len(load.refused)
                wait_for(lambda: len(load.accepted) > before + 300)
                assert len(load.refused) == refusals, "once it is shed, nobody is refused"
            assert set(load.statuses) == {202, 503}
            assert not load.without_retry_after
            for name in ("a", "z"):
                wait_for(lambda name=name: len(good.bodies(name)) >= len(load.accepted))  # type: ignore[misc]
                assert sorted(good.bodies(name)) == sorted(load.accepted), "all that were accepted, and no other"
            letters = len(load.accepted) - 20  # its lane holds the first twenty
            if with_sink:
                wait_for(lambda: len(sink.requests) == letters, what="the dead one's copies")
                assert {request.headers["ce-knativeerrorreason"] for request in sink.requests} == {"stalled"}
                assert dropped(process, "default/dead") == 0
            else:
                wait_for(lambda: dropped(process, "default/dead") == letters, what="the drops are counted")
            print(f"accepted {len(load.accepted)}, refused {refusals}, of the dead one's {letters} shed")


def test_a_slow_one_throttles_its_own_channel_only(tmp_path: Path) -> None:
    def behave(request: Request) -> Answer:
        if request.host.startswith("slow"):
            time.sleep(0.1)
        return Answer()

    with subscriber(behave) as server:
        folder = write(
            tmp_path / "manifests",
            manifest("Subscription", "slow", channel="slow", subscriber=server.url("slow")),
            manifest("Subscription", "beside", channel="slow", subscriber=server.url("beside")),
            manifest("Subscription", "other", channel="other", subscriber=server.url("other")),
        )
        with bus(folder, tmp_path / "state", *LIMITS) as process:
            process.wait_served("slow", "other")
            with Load(process.events, "slow", pause=0.002) as slow, Load(process.events, "other", pause=0.01) as other:
                began = time.monotonic()
                wait_for(lambda: time.monotonic() - began > STALL_AFTER * 1.5 and len(other.accepted) > 100)
            assert slow.refused
            assert not slow.without_retry_after
            assert set(other.statuses) == {202}, "the other channel does not notice"
            _all_arrived(server, "slow", slow.accepted)
            _all_arrived(server, "beside", slow.accepted)
            _all_arrived(server, "other", other.accepted)
            assert dropped(process, "default/slow") == 0, "it makes progress: it is waited for"
            wait_for(
                lambda: process.metric("bus_lane_refusals_total", subscription="default/slow") == len(slow.refused)
            )


def _all_arrived(server: Subscriber, name: str, accepted: set[bytes]) -> None:
    wait_for(lambda: len(server.bodies(name)) >= len(accepted), 20)
    assert sorted(server.bodies(name)) == sorted(accepted)
