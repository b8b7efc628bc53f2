"""One bad subscriber is that subscriber's problem: the others' latency with and without hostile ones beside them.

Ten subscribers, three of which hang, drip-feed and reset in every second run. What counts is the ratio of the other
seven's p99 with and without, against the ratio of two runs that do not differ. The full size is for `make soak`, where
BUS_ISOLATION_PAIRS and BUS_ISOLATION_DELIVERIES may shorten it; one pair is too few for a fine ratio.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from bus_core.data_plane.delivery import Delivery, LaneLimits, Target, thread_executor
from bus_core.data_plane.delivery.lane import Lane
from bus_core.data_plane.dispatch import MessageDispatcher
from bus_core.model.message import Message
from bus_core.model.references import ChannelReference, SubscriptionReference
from bus_core.model.specs import DeliverySpec
from tests.delivery.crowd import Crowd, stamp
from tests.delivery.rig import attach, event_loop
from tests.support import wait_for

TIMEOUT = 2.0
HOSTILE = ("hung", "drip", "reset")
SPEC = DeliverySpec(
    retry=5,
    backoff_policy="exponential",
    backoff_delay=0.2,
    timeout=TIMEOUT,
    retry_after_max=60.0,
    dead_letter_sink=None,
)


@dataclass(frozen=True)
class Size:
    pairs: int
    deliveries: int
    ratio: float


SHORT = Size(pairs=3, deliveries=1500, ratio=4.0)
FULL = Size(
    pairs=int(os.environ.get("BUS_ISOLATION_PAIRS", "5")),
    deliveries=int(os.environ.get("BUS_ISOLATION_DELIVERIES", "20000")),
    ratio=1.25,
)


@pytest.fixture(scope="module")
def crowd() -> Iterator[Crowd]:
    made = Crowd()
    yield made
    made.close()


class Bench:
    """Publishes at a rate to ten subscribers, on ten channels or on one."""

    def __init__(
        self, crowd: Crowd, shared: bool, loop: asyncio.AbstractEventLoop | None, max_threads: int = 256
    ) -> None:
        self.loop = loop
        self.crowd = crowd
        self.channels = [ChannelReference("shared" if shared else f"c{number}") for number in range(10)]
        self.per_event = 10 if shared else 1
        self.max_threads = max_threads

    def run(self, hostile: bool, deliveries: int, rate: float) -> list[float]:
        """The latencies of the seven, sorted. `rate` is events a second; 0 is as fast as it goes."""
        names = [f"good-{number}" for number in range(7)]
        names += list(HOSTILE) if hostile else [f"other-{number}" for number in range(3)]
        dispatcher = MessageDispatcher()
        delivery = Delivery(dispatcher, limits=LaneLimits(events=50_000), max_threads=self.max_threads)
        if self.loop is not None:
            attach(delivery, self.loop)
        for name, channel in zip(names, self.channels, strict=True):
            delivery.open(Target(channel, SubscriptionReference(name), self.crowd.url(name), "", SPEC))
        self.crowd.latencies()
        events = deliveries * 10 // 7 // self.per_event
        channels = self.channels[:1] if self.per_event == 10 else self.channels
        began = time.monotonic()
        for number in range(events):
            ahead = began + number / rate - time.monotonic() if rate else 0.0
            if ahead > 0.0005:
                time.sleep(ahead)  # pacing, not waiting for a condition
            delivery.publish(channels[number % len(channels)], Message({"ce-id": str(number)}, stamp()))
        good = set(names[:7])
        wait_for(lambda: not any(depth for name, depth in delivery.depths().items() if name.split("/")[1] in good), 60)
        self.elapsed = time.monotonic() - began
        found = self.crowd.latencies()
        delivery.drain(0)
        dispatcher.close()
        assert set(found) >= good
        return sorted(latency for name in good for latency in found[name])

    def saturating_rate(self) -> float:
        """Events a second, as fast as they are delivered."""
        events = 4000 // self.per_event
        self.run(False, events * self.per_event * 7 // 10, 0)
        return events / self.elapsed


def p99(latencies: list[float]) -> float:
    return latencies[len(latencies) * 99 // 100]


def compare(bench: Bench, size: Size) -> tuple[float, float, float]:
    """The median ratio with/without, how far unchanged pairs are from 1 in the median, and the latest delivery of the
    others beside hostile ones."""
    rate = bench.saturating_rate() / 2
    ratios, unchanged, latest = [], [], 0.0
    for number in range(size.pairs):
        without = bench.run(False, size.deliveries, rate)
        with_hostile = bench.run(True, size.deliveries, rate)
        again = bench.run(False, size.deliveries, rate)
        ratios.append(p99(with_hostile) / p99(without))
        unchanged.append(p99(again) / p99(without))
        latest = max(latest, with_hostile[-1])
        print(
            f"pair {number}: {rate:.0f} events/s, p99 without {p99(without) * 1e3:.2f} ms, "
            f"with {p99(with_hostile) * 1e3:.2f} ms, without {p99(again) * 1e3:.2f} ms, "
            f"latest {with_hostile[-1] * 1e3:.1f} ms"
        )
    spread = statistics.median(abs(ratio - 1) for ratio in unchanged)
    print(f"median ratio {statistics.median(ratios):.2f}, spread of unchanged pairs {spread:.2f}")
    return statistics.median(ratios), spread, latest


@pytest.mark.parametrize("looping", [False, True], ids=["threads alone", "event loop and threads"])
@pytest.mark.parametrize("shared", [False, True], ids=["channels of their own", "one shared channel"])
def test_others_do_not_notice(crowd: Crowd, shared: bool, looping: bool) -> None:
    with event_loop() as loop:
        ratio, spread, latest = compare(Bench(crowd, shared, loop if looping else None), SHORT)
    assert ratio <= SHORT.ratio + spread
    assert latest < TIMEOUT / 2


@pytest.mark.soak
@pytest.mark.parametrize("shared", [False, True], ids=["channels of their own", "one shared channel"])
def test_others_do_not_notice_at_full_size(crowd: Crowd, shared: bool) -> None:
    with event_loop() as loop:
        ratio, spread, latest = compare(Bench(crowd, shared, loop), FULL)
    assert ratio <= FULL.ratio + spread
    assert latest < TIMEOUT / 2


@pytest.mark.parametrize("shared", [False, True], ids=["channels of their own", "one shared channel"])
def test_it_fails_where_all_lanes_share_one_pool_without_rules(
    crowd: Crowd, shared: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same comparison with the rules taken out: every lane may take as many threads as it likes, and a thread that
    hangs is not replaced."""
    monkeypatch.setattr(Lane, "is_unhealthy", lambda lane, now: False)
    monkeypatch.setattr(thread_executor, "STUCK_AFTER", float("inf"))
    latencies = Bench(crowd, shared, None, max_threads=16).run(True, deliveries=350, rate=100 if shared else 1000)
    assert latencies[-1] > TIMEOUT / 2, "without the rules the hung one holds the others up"
