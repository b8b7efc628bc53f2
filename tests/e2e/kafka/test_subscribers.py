"""Subscribers that are down, poisonous events, and sinks that are down: what is committed, and what waits."""

from __future__ import annotations

import json
import os
import statistics
import time
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import pytest

from tests.e2e.kafka.setting import Account, Setting
from tests.host.load import Load
from tests.support import Answer, BusProcess, Request, subscriber, wait_for

ONCE: dict[str, Any] = {"retry": 0, "timeout": "PT2S"}


@dataclass(frozen=True)
class Size:
    """How often it goes down, for how many seconds, between how many seconds without; and the p99 ratio allowed."""

    pairs: int
    outage: float
    calm: float
    ratio: float


SHORT = Size(pairs=3, outage=4.0, calm=4.0, ratio=4.0)
FULL = Size(pairs=3, outage=float(os.environ.get("BUS_KAFKA_OUTAGE", "60")), calm=20.0, ratio=1.25)


class Crowd:
    """Three subscribers that are well, and one that is down while it is told to be; each notes when what arrived."""

    def __init__(self) -> None:
        self.is_down = False
        self.arrived: dict[str, dict[bytes, float]] = defaultdict(dict)
        self.duplicates = 0

    def behave(self, request: Request) -> Answer:
        name = request.host.split(".")[0]
        if name == "down" and self.is_down:
            return Answer(503)
        self.duplicates += name != "down" and request.body in self.arrived[name]
        self.arrived[name].setdefault(request.body, time.monotonic())
        return Answer()

    def p99(self, load: Load, began: float, ended: float) -> float:
        """Seconds from sending to arrival at those that are well, of what was sent in between."""
        marked = [(body, at) for body, at in load.sent.copy().items() if began <= at < ended and body in load.accepted]
        for name in GOOD:
            wait_for(lambda name=name: all(body in self.arrived[name] for body, _ in marked), 10, "the others go on")  # type: ignore[misc]
        found = sorted(self.arrived[name][body] - at for name in GOOD for body, at in marked)
        return found[len(found) * 99 // 100]


GOOD = ("good-0", "good-1", "good-2")


def _compare(setting: Setting, size: Size) -> None:
    """As for isolation in delivery: what counts is the ratio of the others' p99 beside one that is down, against the
    ratio of two spans that do not differ."""
    crowd = Crowd()
    with subscriber(crowd.behave) as server:
        setting.channel("orders", numPartitions=3)
        for name in (*GOOD, "down"):
            setting.subscription(name, "orders", server.url(name), delivery=ONCE)
        host = setting.start(served=("orders",))
        ratios, unchanged = [], []
        with Load(host.events, "orders", senders=2, pause=0.01) as load:

            def span(seconds: float) -> float:
                began = time.monotonic()
                wait_for(lambda: time.monotonic() - began > seconds, seconds + 5)
                return crowd.p99(load, began, began + seconds)

            wait_for(lambda: len(load.accepted) > 50, what="the producer is connected")
            for number in range(size.pairs):
                without = span(size.calm)
                crowd.is_down = True
                beside = span(size.outage)
                missed = set(load.accepted) - crowd.arrived["down"].copy().keys()
                crowd.is_down = False
                wait_for(lambda missed=missed: missed <= crowd.arrived["down"].keys(), 90, "it gets everything after")  # type: ignore[misc]
                again = span(size.calm)
                ratios.append(beside / without)
                unchanged.append(again / without)
                print(
                    f"\npair {number}: down for {size.outage:g} s, {len(missed)} events late there; the others' p99 "
                    f"without {without * 1e3:.1f} ms, with {beside * 1e3:.1f} ms, without {again * 1e3:.1f} ms"
                )
        for name in (*GOOD, "down"):
            wait_for(lambda name=name: load.accepted <= crowd.arrived[name].keys(), 30, f"all has arrived at {name}")  # type: ignore[misc]
            assert not Account.of(sum(load.statuses.values()), load.accepted, server.bodies(name)).lost
    ratio, spread = statistics.median(ratios), statistics.median(abs(each - 1) for each in unchanged)
    print(f"median ratio {ratio:.2f}, spread of unchanged pairs {spread:.2f}")
    assert crowd.duplicates == 0
    assert set(load.statuses) == {202}
    assert ratio <= size.ratio + spread


def test_others_do_not_notice_one_that_is_down_and_it_gets_everything_after(setting: Setting) -> None:
    _compare(setting, SHORT)


@pytest.mark.soak
def test_others_do_not_notice_one_that_is_down_for_a_minute(setting: Setting) -> None:
    _compare(setting, FULL)


def _poisonous(request: Request) -> Answer:
    return Answer(500, b"poison") if b"poison" in request.body and not request.host.startswith("sink") else Answer()


@pytest.mark.parametrize("ordering", ["key", "partition", "unordered"])
def test_poison_with_a_sink_is_dead_lettered(setting: Setting, ordering: str) -> None:
    with subscriber(_poisonous) as server:
        setting.channel("orders")
        delivery = {"retry": 1, "deadLetterSink": server.url("sink")}
        setting.subscription("one", "orders", server.url("one"), delivery=delivery, ordering=ordering)
        setting.start(served=("orders",))
        bodies = [b"%03d" % number for number in range(20)] + [b"poison"] + [b"%03d" % n for n in range(20, 40)]
        setting.produce("orders", *bodies, key=b"k")
        wait_for(lambda: setting.committed("orders", "one") == {0: 41}, 20, "all are committed")
        assert server.bodies("sink") == [b"poison"]
        good = [body for body in server.bodies("one") if body != b"poison"]
        assert sorted(good) == [body for body in bodies if body != b"poison"]
        if ordering != "unordered":
            assert good == sorted(good), "the order of the others is kept"


@pytest.mark.parametrize("ordering", ["key", "unordered"])
def test_poison_without_a_sink_blocks_only_at_the_limit_and_clears(setting: Setting, ordering: str) -> None:
    cured = False

    def behave(request: Request) -> Answer:
        return Answer() if cured else _poisonous(request)

    limit = 100
    with subscriber(behave) as server:
        setting.channel("orders")
        setting.subscription("one", "orders", server.url("one"), delivery=ONCE, ordering=ordering, maxUncommitted=limit)
        host = setting.start(served=("orders",))
        setting.produce("orders", b"poison", key=b"bad")
        setting.produce("orders", *[b"%03d" % number for number in range(limit // 2)], key=b"good")
        wait_for(lambda: len([b for b in server.bodies() if b != b"poison"]) == limit // 2, 15, "the rest goes on")
        assert host.is_ready()
        assert setting.status("Subscription", "one")["Ready"]["status"] == "True"
        setting.produce("orders", *[b"%03d" % number for number in range(limit // 2, 2 * limit)], key=b"good")

        def ready() -> dict[str, Any]:
            return setting.status("Subscription", "one").get("Ready", {})

        wait_for(lambda: ready().get("reason") == "Blocked", 15, "Blocked appears")
        assert ready()["status"] == "False"
        assert "partition 0 at offset 0" in ready()["message"]
        assert setting.committed("orders", "one") == {0: 0}, "nothing past the poison is committed"
        cured = True
        wait_for(lambda: ready().get("status") == "True", 60, "Blocked clears")
        wait_for(lambda: setting.committed("orders", "one") == {0: 2 * limit + 1}, 30, "and all is committed")
        assert len(set(server.bodies())) == 2 * limit + 1


def test_blocked_is_taken_back_when_more_may_be_read(setting: Setting) -> None:
    with subscriber(_poisonous) as server:
        setting.channel("orders")
        setting.subscription("one", "orders", server.url("one"), delivery=ONCE, maxUncommitted=50)
        setting.start(served=("orders",))
        setting.produce("orders", b"poison", key=b"bad")
        setting.produce("orders", *[b"%d" % number for number in range(100)], key=b"good")

        def ready() -> dict[str, Any]:
            return setting.status("Subscription", "one").get("Ready", {})

        wait_for(lambda: ready().get("reason") == "Blocked", 15, "Blocked appears")
        setting.subscription("one", "orders", server.url("one"), delivery=ONCE, maxUncommitted=5000)
        wait_for(lambda: ready().get("reason") != "Blocked", 20, "and is taken back")
        wait_for(lambda: len(set(server.bodies("one"))) == 101, 20, "what was behind it goes on")


def test_what_is_blocked_is_said_whichever_worker_reads_it(setting: Setting) -> None:
    """Two workers with a partition each: one of them writes conditions, and knows of both."""
    cured = False

    def behave(request: Request) -> Answer:
        return Answer() if cured else _poisonous(request)

    with subscriber(behave) as server:
        setting.channel("orders", numPartitions=2)
        setting.subscription("one", "orders", server.url("one"), delivery=ONCE, maxUncommitted=100)
        host = setting.start("--workers", "2", served=("orders",))
        wait_for(lambda: _is_shared(host), 30, "a partition each")
        for partition in (0, 1):
            setting.produce("orders", b"poison", key=b"bad", partition=partition)
            setting.produce("orders", *[b"%d" % number for number in range(200)], key=b"good", partition=partition)

        def ready() -> dict[str, Any]:
            return setting.status("Subscription", "one").get("Ready", {})

        wait_for(lambda: "partition 0 at offset 0, partition 1 at offset 0" in ready().get("message", ""), 20)
        assert ready()["reason"] == "Blocked"
        assert host.metric("bus_kafka_blocked_partitions", subscription="default/one") == 2
        cured = True
        wait_for(lambda: ready().get("status") == "True", 60, "Blocked clears")


def _is_shared(host: BusProcess) -> bool:
    """Whether each worker reads one of two partitions: the second was given one alone, whoever had both before."""
    return any(json.loads(line)["partitions"] in ([0], [1]) for line in host.says('"partitions assigned"'))


def test_a_sink_that_is_down_is_not_committed_and_after_a_restart_it_arrives(setting: Setting) -> None:
    up = False

    def behave(request: Request) -> Answer:
        if request.host.startswith("sink"):
            return Answer() if up else Answer(503)
        return Answer(400)

    with subscriber(behave) as server:
        setting.channel("orders")
        delivery = {**ONCE, "deadLetterSink": server.url("sink")}
        setting.subscription("one", "orders", server.url("one"), delivery=delivery)
        host = setting.start("--drain-timeout", "1", served=("orders",))
        assert host.send("orders", b"an event").status == 202
        wait_for(lambda: server.bodies("sink"), 15)
        assert setting.committed("orders", "one") == {0: 0}
        assert host.stop() == 0
        assert setting.committed("orders", "one") == {0: 0}
        server.requests.clear()
        up = True
        setting.start(served=("orders",))
        wait_for(lambda: setting.committed("orders", "one") == {0: 1}, 30, "it is settled")
        assert server.bodies("sink") == [b"an event"]
