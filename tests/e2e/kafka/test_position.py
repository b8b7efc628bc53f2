"""Where a subscription begins: nothing sent after Ready is missed, whatever `initialOffset` says."""

from __future__ import annotations

import pytest

from tests.e2e.kafka.setting import Account, Setting
from tests.host.load import Load
from tests.support import subscriber, wait_for


@pytest.mark.parametrize("workers", ["1", "2"])
def test_newest_gets_all_that_comes_after_ready(setting: Setting, workers: str) -> None:
    with subscriber() as server:
        setting.channel("orders", numPartitions=4)
        host = setting.start("--workers", workers, served=("orders",))
        setting.produce("orders", *[b"history-%d" % number for number in range(200)])
        setting.subscription("one", "orders", server.url())
        wait_for(lambda: setting.status("Subscription", "one").get("Ready", {}).get("status") == "True", 30, "Ready")
        host.wait_served("orders")
        with Load(host.events, "orders", senders=8, limit=1000) as load:
            load.join()
        wait_for(lambda: set(server.bodies()) >= load.accepted, 30)
        account = Account.of(1000, load.accepted, server.bodies())
        assert account.acknowledged == 1000
        assert not account.lost
        assert not [body for body in server.bodies() if body.startswith(b"history")]


def test_oldest_gets_the_history_too(setting: Setting) -> None:
    history = {b"history-%d" % number for number in range(500)}
    with subscriber() as server:
        setting.channel("orders", numPartitions=4)
        host = setting.start(served=("orders",))
        setting.produce("orders", *history)
        setting.subscription("one", "orders", server.url(), initialOffset="Oldest")
        wait_for(lambda: set(server.bodies()) >= history, 30)
        assert host.send("orders", b"new").status == 202
        wait_for(lambda: b"new" in server.bodies())
        assert not Account.of(500, history, server.bodies()).lost


def test_partitions_that_are_added_later_start_at_their_oldest(setting: Setting) -> None:
    with subscriber() as server:
        setting.channel("orders", numPartitions=1)
        setting.subscription("one", "orders", server.url())
        setting.start("--set", "kafka.config.topic.metadata.refresh.interval.ms=2000", served=("orders",))
        setting.channel("orders", numPartitions=3)
        topic = setting.topic("orders")
        wait_for(lambda: len(setting.admin.list_topics(topic, timeout=5).topics[topic].partitions) == 3, 15)
        bodies = {b"%d-%d" % (partition, number) for partition in (1, 2) for number in range(20)}
        for partition in (1, 2):
            setting.produce(
                "orders", *[body for body in bodies if body.startswith(b"%d" % partition)], partition=partition
            )
        wait_for(lambda: set(server.bodies()) >= bodies, 40, "what was written before anyone saw them")


def test_a_position_is_kept_over_a_restart(setting: Setting) -> None:
    with subscriber() as server:
        setting.channel("orders")
        setting.subscription("one", "orders", server.url())
        host = setting.start(served=("orders",))
        assert host.send("orders", b"first").status == 202
        wait_for(lambda: server.bodies() == [b"first"])
        assert host.stop() == 0
        setting.produce("orders", b"while nobody ran")
        setting.start(served=("orders",))
        wait_for(lambda: server.bodies() == [b"first", b"while nobody ran"], 20, "once each")


def test_a_group_goes_although_its_last_member_was_killed(setting: Setting) -> None:
    """The brokers count a member that was killed until its session ends, and a group with members is not deleted."""
    with subscriber() as server:
        setting.channel("orders")
        setting.subscription("one", "orders", server.url())
        host = setting.start(served=("orders",))
        assert setting.group("orders", "one") in setting.groups()
        host.kill()
        setting.remove("Subscription", "one")
        setting.start(served=("orders",))
        wait_for(lambda: setting.group("orders", "one") not in setting.groups(), 30, "the group is gone")
