"""References, the Host rule, messages, forwarded headers and parameters."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bus_core import (
    BusReference,
    ChannelReference,
    ConfigurationError,
    ForwardedHeaders,
    InvalidMessageError,
    Message,
    Parameter,
    ParameterError,
    SubscriptionReference,
)
from bus_core.model.parameters import resolve_parameters


def test_references_print_as_people_write_them() -> None:
    assert str(BusReference("demo", "shop")) == "shop/demo"
    assert str(BusReference("demo")) == "demo"
    assert str(ChannelReference("orders", "shop")) == "shop/orders"
    assert str(SubscriptionReference("one")) == "default/one"
    assert BusReference.parse("shop/demo") == BusReference("demo", "shop")
    assert BusReference.parse("demo").is_cluster_bus


@pytest.mark.parametrize("text", ["", "/", "a/", "/a", "a/b/c"])
def test_a_bus_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match="NAMESPACE/NAME"):
        BusReference.parse(text)


@pytest.mark.parametrize(
    ("host", "channel"),
    [
        ("orders.shop", ("orders", "shop")),
        ("ORDERS.Shop:8080", ("orders", "shop")),
        ("orders.shop.localhost:80", ("orders", "shop")),
        ("orders-channel.shop.svc", ("orders", "shop")),
        ("orders-channel.shop.svc.cluster.local", ("orders", "shop")),
        ("orders-channel.shop.example", ("orders-channel", "shop")),
        ("orders.shop.svc.cluster.local", ("orders", "shop")),
        ("orders.shop.", ("orders", "shop")),
    ],
)
def test_a_host_names_a_channel(host: str, channel: tuple[str, str]) -> None:
    assert ChannelReference.from_host(host) == ChannelReference(*channel)


@pytest.mark.parametrize(
    "host",
    ["", ".", "..", "orders", "orders.", ".shop", "a..b", "a b.c", "[::1]:80", "127.0.0.1:8080", "a." + "b" * 300],
)
def test_a_host_that_names_none_is_refused(host: str) -> None:
    with pytest.raises(InvalidMessageError):
        ChannelReference.from_host(host)


@given(st.text(max_size=300))
def test_no_host_does_worse_than_being_refused(host: str) -> None:
    try:
        channel = ChannelReference.from_host(host)
    except InvalidMessageError:
        return
    assert channel.name
    assert channel.namespace


def test_a_message_keeps_its_payload_to_itself() -> None:
    message = Message({"Content-Type": "text/plain", "KNATIVE-Hops": "3"}, b"secret")
    assert message.headers == {"content-type": "text/plain", "knative-hops": "3"}
    assert message.hops == 3
    assert "secret" not in repr(message)
    assert message == Message({"content-type": "text/plain", "knative-hops": "3"}, b"secret")
    for value in ("", "-1", "x", "99999999999", "\u0663"):
        assert Message({"knative-hops": value}, b"").hops == 0


def test_only_forwarded_headers_are_chosen_and_the_first_of_a_repeated_one() -> None:
    raw = [
        (b"ce-id", b"1"),
        (b"cookie", b"x"),
        (b"ce-id", b"2"),
        (b"x-b3-traceid", b"t"),
        (b"content-type", "é".encode()),
    ]
    assert ForwardedHeaders().select(raw) == {"ce-id": "1", "x-b3-traceid": "t", "content-type": "é"}
    more = ForwardedHeaders(["X-Tenant", "x-my-"])
    assert more.select([(b"x-tenant", b"a"), (b"x-my-own", b"b"), (b"x-tenants", b"c")]) == {
        "x-tenant": "a",
        "x-my-own": "b",
    }


@pytest.mark.parametrize("value", [b"\xff", b"a\rb", b"a\nb", b"a\0b"])
def test_a_forwarded_value_that_breaks_framing_is_refused(value: bytes) -> None:
    with pytest.raises(InvalidMessageError, match="ce-id"):
        ForwardedHeaders().select([(b"ce-id", value)])
    assert ForwardedHeaders().select([(b"cookie", value)]) == {}


def test_strangers_do_not_fill_the_cache_of_names() -> None:
    rule = ForwardedHeaders()
    for number in range(5000):
        rule.select([(b"x-%d" % number, b"v")])
    assert len(rule._cache) <= 1024
    assert rule.select([(b"ce-late", b"v")]) == {"ce-late": "v"}


def test_parameters_resolve_driver_then_bus_then_argument() -> None:
    driver = [Parameter("a", default="1"), Parameter("b", default="1"), Parameter("s", scope="subscription")]
    bus = [Parameter("b", default="2"), Parameter("c", default="2"), Parameter("a")]
    values, unknown = resolve_parameters("channel", driver, bus, arguments={"c": "3", "z": "0"})
    assert values == {"a": "1", "b": "2", "c": "3"}
    assert unknown == ["z"]
    with pytest.raises(ParameterError, match="x, y"):
        resolve_parameters("channel", [Parameter("y"), Parameter("x")], arguments={})
