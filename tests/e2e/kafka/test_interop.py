"""Other programs on a channel's topic: the plain Kafka client and the CloudEvents SDK, in both directions."""

from __future__ import annotations

import json
import urllib.parse
import uuid

import pytest
from cloudevents.core.bindings import kafka as binding
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1 import event as core
from cloudevents.v1.http import CloudEvent
from cloudevents.v1.kafka import KafkaMessage, from_binary, from_structured, to_binary
from confluent_kafka import Consumer, Message, Producer, TopicPartition

from tests.e2e.kafka.setting import Setting
from tests.support import BusProcess, Subscriber, request, subscriber, wait_for


def consume(setting: Setting, number: int) -> list[Message]:
    """The records of the channel, read by a client of no group's."""
    consumer = Consumer(
        {"bootstrap.servers": setting.cluster.bootstrap, "group.id": uuid.uuid4().hex, "enable.auto.commit": False}
    )
    consumer.assign([TopicPartition(setting.topic("orders"), 0, 0)])
    found: list[Message] = []
    wait_for(lambda: found.extend(consumer.consume(10, 0.5)) or len(found) >= number, 20, "records")  # type: ignore[func-returns-value]
    consumer.close()
    return found


def kafka_message(record: Message) -> KafkaMessage:
    return KafkaMessage(dict(record.headers() or ()), record.key(), record.value())


def produce(setting: Setting, message: KafkaMessage) -> None:
    producer = Producer({"bootstrap.servers": setting.cluster.bootstrap})
    producer.produce(setting.topic("orders"), message.value, message.key, headers=dict(message.headers))
    assert producer.flush(10) == 0


@pytest.fixture
def host(setting: Setting, server: Subscriber) -> BusProcess:
    setting.channel("orders")
    setting.subscription("one", "orders", server.url())
    return setting.start(served=("orders",))


@pytest.fixture
def server():  # type: ignore[no-untyped-def]
    with subscriber() as made:
        yield made


ATTRIBUTES = {"type": "größe.änderung", "source": "/quelle/ü", "subject": '100 % "sicher" \u20ac \U0001f4a5'}


@pytest.mark.parametrize("data", [b'{"a": "\xc3\xa9"}', b"", bytes(range(256))])
def test_a_binary_event_out_to_the_sdk(setting: Setting, host: BusProcess, data: bytes) -> None:
    headers = {f"ce_{name}": urllib.parse.quote(value, safe="/.") for name, value in ATTRIBUTES.items()}
    answer = request(
        host.events,
        host="orders.default",
        body=data,
        ce_id="1",
        ce_specversion="1.0",
        ce_partitionkey="k%C3%A9y",
        content_type="application/octet-stream",
        x_request_id="r-1",
        **headers,
    )
    assert answer.status == 202
    (record,) = consume(setting, 1)
    assert record.key() == "kéy".encode()
    assert record.value() == data
    found = dict(record.headers() or ())
    assert found["content-type"] == b"application/octet-stream"
    assert found["x-request-id"] == b"r-1"
    for name, value in ATTRIBUTES.items():
        assert found[f"ce_{name}"].decode() == value
    event = from_binary(kafka_message(record), data_unmarshaller=lambda raw: raw)
    for name, value in ATTRIBUTES.items():
        assert event[name] == value
    assert (event.data or b"") == data


def test_a_structured_event_out_to_the_sdk(setting: Setting, host: BusProcess) -> None:
    event = {"specversion": "1.0", "id": "1", **ATTRIBUTES, "partitionkey": "kéy", "data": {"a": "é"}}
    body = json.dumps(event).encode()
    answer = request(host.events, host="orders.default", body=body, content_type="application/cloudevents+json")
    assert answer.status == 202
    (record,) = consume(setting, 1)
    assert record.value() == body
    assert record.key() == "kéy".encode()
    read = from_structured(kafka_message(record))
    assert read["subject"] == ATTRIBUTES["subject"]
    assert read.data == {"a": "é"}


def test_a_binary_event_in_from_the_sdk(setting: Setting, host: BusProcess, server: Subscriber) -> None:
    event = CloudEvent({**ATTRIBUTES, "datacontenttype": "text/plain", "partitionkey": "k"}, b"data \xff")
    produce(setting, to_binary(event, data_marshaller=lambda raw: raw, key_mapper=lambda e: e["partitionkey"]))
    got = wait_for(lambda: server.requests[:], 15)[0]
    assert got.body == b"data \xff"
    assert got.headers["content-type"] == "text/plain"
    for name, value in ATTRIBUTES.items():
        sent = got.headers[f"ce-{name}"]
        assert sent.isascii()
        assert urllib.parse.unquote(sent) == value


def test_a_structured_event_in_from_the_sdk(setting: Setting, host: BusProcess, server: Subscriber) -> None:
    # The SDK's newer binding: the older one gives a structured record no content type, which the binding demands.
    event = core.CloudEvent({"id": "1", "specversion": "1.0", **ATTRIBUTES, "partitionkey": "k"}, {"a": "é"})
    message = binding.to_structured(event, JSONFormat())
    produce(setting, KafkaMessage(message.headers, message.key, message.value))
    got = wait_for(lambda: server.requests[:], 15)[0]
    assert got.headers["content-type"].startswith("application/cloudevents+json")
    assert json.loads(got.body)["subject"] == ATTRIBUTES["subject"]
    assert not [name for name in got.headers if name.startswith("ce-")]


def test_plain_records_of_a_client_that_knows_no_cloudevents(
    setting: Setting, host: BusProcess, server: Subscriber
) -> None:
    """A tombstone, headers that no HTTP header could hold, and some that must not travel."""
    headers = [
        ("ce_id", b"1"),
        ("ce_type", b"a\r\nb\xff"),
        ("traceparent", b"00-1\r\nx-evil: 1"),
        ("content-length", b"99999"),
        ("Host", b"elsewhere"),
        ("authorization", b"secret"),
        ("ce_id", b"second"),
    ]
    produce(setting, KafkaMessage({}, None, None))  # type: ignore[arg-type]  # a tombstone
    producer = Producer({"bootstrap.servers": setting.cluster.bootstrap})
    producer.produce(setting.topic("orders"), b"body", headers=headers)
    assert producer.flush(10) == 0
    wait_for(lambda: len(server.requests) == 2, 15)
    got = next(request for request in server.requests if request.body)
    assert got.headers["ce-id"] == "1"
    assert got.headers["ce-type"] == "a%0D%0Ab%FF"
    assert got.headers["traceparent"] == "00-1  x-evil: 1"
    assert "authorization" not in got.headers
    assert "x-evil" not in got.headers
    assert got.host.startswith("subscriber.localhost")
