"""Subscribers that are down, poisonous events, and sinks that are down: what is committed, and what waits."""

from __future__ import annotations

import os
import time
from typing import Any

import pytest

from tests.e2e.kafka.setting import Account, Setting
from tests.host.load import Load
from tests.support import Answer, Request, subscriber, wait_for

OUTAGE = float(os.environ.get("BUS_KAFKA_OUTAGE", "60"))
SHORT_OUTAGE = 6.0
ONCE: dict[str, Any] = {"retry": 0, "timeout": "PT2S"}


def _down(setting: Setting, outage: float) -> None:
    up = False

    def behave(request: Request) -> Answer:
        return Answer() if up or request.host.startswith("good") else Answer(503)

    with subscriber(behave) as server:
        setting.channel("orders", numPartitions=3)
        for number in range(3):
            setting.subscription(f"good-{number}", "orders", server.url(f"good-{number}"))
        setting.subscription("down", "orders", server.url("down"), delivery=ONCE)
        host = setting.start(served=("orders",))
        late: list[float] = []
        began = time.monotonic()
        with Load(host.events, "orders", senders=2, pause=0.01) as load:
            wait_for(lambda: time.monotonic() - began > outage, outage + 5)
            at = time.monotonic()
            marker = set(load.accepted)
            wait_for(lambda: set(server.bodies("good-0")) >= marker, 5, "the others are not held up")
            late.append(time.monotonic() - at)
            up = True
        wait_for(lambda: set(server.bodies("down")) >= load.accepted, 90, "it gets everything after")
        print(f"\ndown for {outage:g} s; the others were at most {max(late):.2f} s behind")
        account = Account.of(sum(load.statuses.values()), load.accepted, server.bodies("down"))
        assert not account.lost
        for number in range(3):
            account = Account.of(sum(load.statuses.values()), load.accepted, server.bodies(f"good-{number}"))
            assert not account.lost
            assert account.duplicates == 0
        assert set(load.statuses) == {202}


def test_a_subscriber_that_is_down_gets_everything_after(setting: Setting) -> None:
    _down(setting, SHORT_OUTAGE)


@pytest.mark.soak
def test_a_subscriber_that_is_down_for_a_minute(setting: Setting) -> None:
    _down(setting, OUTAGE)


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
