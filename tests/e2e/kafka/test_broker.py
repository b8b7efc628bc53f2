"""Brokers that hang, die and come back: no 202 without an acknowledgement, and nothing acknowledged is lost."""

from __future__ import annotations

import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.e2e.kafka.setting import Account, Setting
from tests.host.load import Load
from tests.support import request, subscriber, wait_for

OUTAGE = float(os.environ.get("BUS_KAFKA_OUTAGE", "60"))
SHORT_OUTAGE = 8.0


def test_a_broker_that_hangs_gives_503_and_recovers(lone: Setting) -> None:
    with subscriber() as server:
        lone.channel("orders")
        lone.subscription("one", "orders", server.url())
        host = lone.start("--set", "kafka.produce_timeout=2", served=("orders",))
        assert host.send("orders", b"before").status == 202
        (broker,) = lone.cluster.brokers
        broker.signal(signal.SIGSTOP)
        began = time.monotonic()
        with ThreadPoolExecutor(8) as pool:
            answers = list(
                pool.map(
                    lambda number: request(host.events, host="orders.default", body=b"during-%d" % number),
                    range(8),
                )
            )
        took = time.monotonic() - began
        print(f"\n8 events at a broker that hangs: {[answer.status for answer in answers]} after {took:.1f} s")
        assert {answer.status for answer in answers} == {503}
        assert all(int(answer.headers["retry-after"]) >= 1 for answer in answers)
        assert took < 10
        broker.signal(signal.SIGCONT)
        wait_for(lambda: host.send("orders", b"after").status == 202, 30, "it recovers by itself")
        wait_for(lambda: {b"before", b"after"} <= set(server.bodies()), 30)


def test_a_stop_does_not_wait_for_a_broker_that_hangs(lone: Setting) -> None:
    with subscriber() as server:
        lone.channel("orders")
        lone.subscription("one", "orders", server.url())
        host = lone.start("--set", "kafka.produce_timeout=2", "--drain-timeout", "2", served=("orders",))
        assert host.send("orders", b"before").status == 202
        (broker,) = lone.cluster.brokers
        broker.signal(signal.SIGSTOP)
        lone.channel("late")
        threading.Event().wait(1.0)  # the hook `provision` of the new channel waits for the broker by then
        began = time.monotonic()
        assert host.stop() == 0
        took = time.monotonic() - began
        print(f"\na host whose broker hangs stopped after {took:.1f} s")
        assert took < 8
        assert host.says("the host stops before the brokers answered")


def test_the_leader_of_three_is_killed_under_load(trio: Setting) -> None:
    with subscriber() as server:
        trio.channel("orders", numPartitions=3)
        trio.subscription("one", "orders", server.url())
        host = trio.start("--set", "kafka.produce_timeout=5", served=("orders",))
        topic = trio.topic("orders")
        refused_at: list[float] = []
        with Load(host.events, "orders", senders=8, pause=0.002) as load:
            wait_for(lambda: len(load.accepted) > 1000, 30)
            leader = trio.admin.list_topics(topic, timeout=10).topics[topic].partitions[0].leader
            killed = trio.cluster.brokers[leader - 1]
            killed.signal(signal.SIGKILL)
            at = time.monotonic()
            refusals = len(load.refused)
            while time.monotonic() - at < 20:
                if len(load.refused) > refusals:
                    refusals = len(load.refused)
                    refused_at.append(time.monotonic() - at)
                threading.Event().wait(0.05)  # the length of the measurement
            before = len(load.accepted)
            wait_for(lambda: len(load.accepted) > before + 500, 30, "it goes on")
        last = max(refused_at, default=0.0)
        print(f"\nanswers {dict(load.statuses)}; the last refusal {last:.1f} s after the kill")
        assert set(load.statuses) <= {202, 503}
        assert load.broken == 0
        assert last < 15
        wait_for(lambda: set(server.bodies()) >= load.accepted, 60)
        assert not Account.of(sum(load.statuses.values()), load.accepted, server.bodies()).lost


def _all_down(lone: Setting, outage: float) -> None:
    with subscriber() as server:
        lone.channel("orders")
        lone.subscription("one", "orders", server.url())
        host = lone.start("--set", "kafka.produce_timeout=2", served=("orders",))
        with Load(host.events, "orders", senders=4, pause=0.005) as load:
            wait_for(lambda: len(load.accepted) > 300, 30)
            (broker,) = lone.cluster.brokers
            broker.signal(signal.SIGKILL)
            assert broker.process is not None
            broker.process.wait()
            down = time.monotonic()
            wait_for(lambda: load.refused, 15)
            wait_for(lambda: time.monotonic() - down > outage, outage + 5)
            accepted = len(load.accepted)
            lone.cluster.run(broker)
            wait_for(lambda: len(load.accepted) > accepted + 100, 60, "it recovers by itself")
        assert set(load.statuses) == {202, 503}
        assert load.broken == 0
        assert not load.without_retry_after
        wait_for(lambda: set(server.bodies()) >= load.accepted, 60, "everything drains")
        print(f"\nall brokers down for {outage:g} s: answers {dict(load.statuses)}")
        assert not Account.of(sum(load.statuses.values()), load.accepted, server.bodies()).lost
        assert host.stop() == 0


def test_all_brokers_down_and_back(lone: Setting) -> None:
    _all_down(lone, SHORT_OUTAGE)


@pytest.mark.soak
def test_all_brokers_down_for_a_minute_and_back(lone: Setting) -> None:
    _all_down(lone, OUTAGE)
