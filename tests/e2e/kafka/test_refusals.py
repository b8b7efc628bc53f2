"""What a channel refuses, and what it measures: too large, too few replicas, and how far behind a group is."""

from __future__ import annotations

import signal
import threading

from confluent_kafka.admin import AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType

from tests.e2e.kafka.setting import Setting
from tests.support import Answer, subscriber, wait_for


def test_an_event_over_the_topics_limit_is_413_at_once_and_others_go_on(setting: Setting) -> None:
    setting.channel("small", topicConfig="max.message.bytes=2000")
    setting.channel("usual")
    host = setting.start(served=("small", "usual"))
    answer = host.send("small", b"x" * 5000)
    assert answer.status == 413
    assert "2000" in answer.text
    assert host.send("small", b"x" * 500).status == 202
    assert host.send("usual", b"x" * 5000).status == 202


def test_a_limit_that_was_raised_past_the_bus_is_learnt_when_an_event_needs_it(setting: Setting) -> None:
    setting.channel("small", topicConfig="max.message.bytes=2000")
    host = setting.start(served=("small",))
    assert host.send("small", b"x" * 5000).status == 413
    larger = ConfigEntry("max.message.bytes", "100000", incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ResourceType.TOPIC, setting.topic("small"), incremental_configs=[larger])
    (done,) = setting.admin.incremental_alter_configs([resource]).values()
    done.result(10)
    wait_for(lambda: host.send("small", b"x" * 5000).status == 202, 15, "it is asked for again, every five seconds")


def test_too_few_replicas_is_503_and_not_202(trio: Setting) -> None:
    trio.channel("orders", replicationFactor=3, topicConfig="min.insync.replicas=3")
    host = trio.start("--set", "kafka.produce_timeout=2", served=("orders",))
    assert host.send("orders").status == 202
    trio.cluster.brokers[2].signal(signal.SIGKILL)
    wait_for(lambda: host.send("orders").status != 202, 30)
    answer = host.send("orders")
    print(f"\ntwo replicas of three that are asked for: {answer.status} {answer.text}")
    assert answer.status == 503
    assert int(answer.headers["retry-after"]) >= 1
    trio.channel("orders", replicationFactor=3, topicConfig="min.insync.replicas=2")
    wait_for(lambda: host.send("orders").status == 202, 30, "cured by editing the channel")


def test_the_lag_of_a_group_is_a_metric(setting: Setting) -> None:
    released = threading.Event()

    def behave(_: object) -> Answer:
        released.wait(30)
        return Answer()

    with subscriber(behave) as server:
        setting.channel("orders")
        setting.subscription("one", "orders", server.url(), ordering="partition")
        host = setting.start(served=("orders",))
        for number in range(20):  # one is with the subscriber, the others wait
            assert host.send("orders", b"%d" % number).status == 202
        name = "bus_kafka_consumer_lag"
        wait_for(lambda: host.metric(name, subscription="default/one") == 20, 15, "all twenty are behind")
        released.set()
        wait_for(lambda: host.metric(name, subscription="default/one") == 0, 15, "none is")
