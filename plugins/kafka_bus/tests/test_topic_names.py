"""Topic and group names: what Kafka takes, and what would collide."""

from __future__ import annotations

import pytest

import kafka_bus.names
from bus_core import BusReference, ChannelReference, PermanentError, SubscriptionReference
from kafka_bus.names import TopicNames, collision, group_name, topic_name

DEFAULT = "knative-bus.{namespace}.{bus}.{channel}"
BUS = BusReference("demo", "default")


def test_a_topic_and_a_group_say_whose_they_are() -> None:
    topic = topic_name(DEFAULT, BUS, ChannelReference("orders", "shop"))
    assert topic == "knative-bus.shop.demo.orders"
    assert group_name(topic, SubscriptionReference("billing", "shop")) == "knative-bus.shop.demo.orders.billing"


def test_a_name_that_is_too_long_is_refused_before_anything_is_made() -> None:
    with pytest.raises(PermanentError, match="Kafka allows 249"):
        topic_name("x" * 200 + ".{namespace}.{channel}", BUS, ChannelReference("c" * 63))


@pytest.mark.parametrize(
    "template", ["a b.{namespace}.{channel}", "ä.{namespace}.{channel}", "a/{namespace}.{channel}"]
)
def test_a_character_that_kafka_does_not_take_is_refused(template: str) -> None:
    with pytest.raises(PermanentError, match="does not allow"):
        topic_name(template, BUS, ChannelReference("orders"))


def test_dots_and_underscores_are_one_to_kafka() -> None:
    assert collision("a.b", {"a_b", "a.b", "c"}) == "a_b"
    assert collision("a.b", {"a.b", "a-b"}) is None


def test_names_are_remembered_up_to_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kafka_bus.names, "MAX_NAMES", 3)
    names = TopicNames(DEFAULT, BUS)
    for number in range(10):
        channel = ChannelReference(f"channel-{number}")
        assert names.get(channel) == names.get(channel) == f"knative-bus.default.demo.channel-{number}"
        assert len(names._names) <= 3
    names.forget(ChannelReference("channel-9"))
    assert names._names == {}
