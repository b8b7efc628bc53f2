"""The main job on a real broker: replies, dead letters, topics and groups that come and go, and the demo."""

from __future__ import annotations

import subprocess
import urllib.parse

from confluent_kafka.admin import NewTopic

from tests.e2e.kafka.cluster import Cluster
from tests.e2e.kafka.setting import Account, Setting
from tests.host.load import Load
from tests.support import BUS, Answer, Request, subscriber, wait_for


def test_two_channels_three_subscriptions_replies_and_dead_letters(setting: Setting) -> None:
    def behave(request: Request) -> Answer:
        if request.host.startswith("billing"):
            return Answer(200, b"answer to " + request.body, {"content-type": "text/plain", "ce-id": "r"})
        return Answer(400, b"no") if request.host.startswith("picky") else Answer()

    with subscriber(behave) as server:
        setting.channel("orders", numPartitions=3)
        setting.channel("receipts")
        setting.subscription("picky", "orders", server.url("picky"), delivery={"deadLetterSink": server.url("sink")})
        setting.subscription("billing", "orders", server.url("billing"), replyTo="receipts")
        setting.subscription("mailbox", "receipts", server.url("mailbox"))
        host = setting.start(served=("orders", "receipts"))
        with Load(host.events, "orders", senders=8, limit=1000) as load:
            load.join()
        assert set(load.statuses) == {202}
        answers = {b"answer to " + body for body in load.accepted}
        wait_for(lambda: set(server.bodies("mailbox")) >= answers and set(server.bodies("sink")) >= load.accepted, 30)
        for name in ("picky", "billing", "sink"):
            account = Account.of(1000, load.accepted, server.bodies(name))
            assert not account.lost
            assert account.duplicates == 0
        assert not Account.of(1000, answers, server.bodies("mailbox")).lost
        letter = next(request for request in server.requests if request.host.startswith("sink"))
        assert urllib.parse.unquote(letter.headers["ce-knativeerrordest"]) == server.url("picky")
        wait_for(lambda: sum(setting.committed("orders", "picky").values()) == 1000, 10, "all is committed")
        assert host.stop() == 0


def test_topics_and_groups_come_and_go(setting: Setting) -> None:
    with subscriber() as server:
        setting.channel(
            "orders", numPartitions=2, retention="P1D", topicConfig="max.message.bytes=100000;cleanup.policy=delete"
        )
        setting.subscription("one", "orders", server.url())
        host = setting.start("--deletion-grace", "0", served=("orders",))
        topic = setting.topic("orders")
        assert len(setting.admin.list_topics(topic, timeout=10).topics[topic].partitions) == 2
        config = _config(setting, topic)
        assert config["retention.ms"] == "86400000"
        assert config["max.message.bytes"] == "100000"

        setting.channel("orders", numPartitions=4, retention="PT1H")
        wait_for(lambda: len(setting.admin.list_topics(topic, timeout=10).topics[topic].partitions) == 4)
        wait_for(lambda: _config(setting, topic)["retention.ms"] == "3600000")

        setting.channel("orders", numPartitions=1)
        found = wait_for(lambda: setting.status("Channel", "orders").get("Ready", {}).get("status") == "False" and 1)
        assert found
        message = setting.status("Channel", "orders")["Ready"]["message"]
        assert "has 4 partitions and numPartitions asks for 1" in message
        assert host.send("orders", b"works").status == 202, "a channel that works goes on"

        setting.remove("Subscription", "one")
        wait_for(lambda: setting.group("orders", "one") not in setting.groups(), 15, "the group is gone")
        setting.remove("Channel", "orders")
        wait_for(lambda: topic not in setting.topics(), 15, "the topic is gone")


def test_a_subscription_and_a_channel_deleted_while_nobody_runs(setting: Setting) -> None:
    with subscriber() as server:
        setting.channel("orders")
        setting.channel("other")
        setting.subscription("one", "orders", server.url())
        setting.subscription("two", "orders", server.url())
        host = setting.start(served=("orders", "other"))
        assert host.stop() == 0
        assert {setting.group("orders", "one"), setting.group("orders", "two")} <= setting.groups()
        setting.remove("Subscription", "one")
        setting.remove("Channel", "other")
        setting.start("--deletion-grace", "0", served=("orders",))
        wait_for(lambda: setting.group("orders", "one") not in setting.groups(), 15, "the group is gone")
        wait_for(lambda: setting.topic("other") not in setting.topics(), 15, "the topic is gone")
        assert setting.group("orders", "two") in setting.groups()


def test_names_that_would_collide_and_parameters_that_cannot_be_used(setting: Setting) -> None:
    setting.channel("bad", numPartitions="many")
    setting.channel("worse", topicConfig="no.such.setting=1")
    setting.channel("copies", replicationFactor=7)
    setting.channel("clash")
    taken = setting.topic("clash").replace(".clash", "_clash")
    setting.admin.create_topics([NewTopic(taken, 1, 1)])[taken].result(10)
    setting.start()

    def ready(channel: str) -> str:
        return str(
            wait_for(lambda: setting.status("Channel", channel).get("Ready", {}).get("message"), 15, f"{channel} fails")
        )

    assert "numPartitions: 'many'" in ready("bad")
    assert "no.such.setting" in ready("worse")
    assert "replication" in ready("copies").lower()
    assert f"would collide with the existing topic {taken}" in ready("clash")
    assert not setting.topics() & {setting.topic(name) for name in ("bad", "worse", "copies", "clash")}


def test_the_demo(kafka: Cluster) -> None:
    command = [str(BUS), "demo", "--once", "--driver", "kafka", "--set", f"kafka.brokers={kafka.bootstrap}"]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "reached every subscription" in result.stdout


def _config(setting: Setting, topic: str) -> dict[str, str]:
    from confluent_kafka.admin import ConfigResource, ResourceType

    (future,) = setting.admin.describe_configs([ConfigResource(ResourceType.TOPIC, topic)]).values()
    return {name: entry.value for name, entry in future.result(10).items()}
