"""Events as records and back, as the CloudEvents Kafka binding says."""

from __future__ import annotations

import json
import urllib.parse

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bus_core import ForwardedHeaders, Message
from kafka_bus.codec import to_message, to_record

FORWARDED = ForwardedHeaders()


def back(message: Message) -> Message:
    record = to_record(message)
    return to_message(record.value, record.headers, FORWARDED)


def test_attributes_are_headers_with_an_underscore_in_plain_utf_8() -> None:
    record = to_record(Message({"ce-type": "gr%C3%B6%C3%9Fe", "content-type": "text/plain", "x-request-id": "r"}, b"x"))
    assert record.headers == [
        ("ce_type", "größe".encode()),
        ("content-type", b"text/plain"),
        ("x-request-id", b"r"),
    ]
    assert record.value == b"x"
    assert record.key is None


@pytest.mark.parametrize("value", ["a b", "100 %", 'say "x"', "größe", "\U0001f4a5", "a\tb", "~", "", "a%zz"])
def test_an_attribute_comes_back_as_the_http_binding_writes_it(value: str) -> None:
    sent = urllib.parse.quote(value, safe="~")
    got = back(Message({"ce-subject": sent}, b"")).headers["ce-subject"]
    assert urllib.parse.unquote(got) == value
    assert got.isascii()
    assert not set(got) & set(' "\t')


@given(
    st.dictionaries(st.sampled_from(["ce-a", "ce-b", "traceparent", "x-b3-x", "content-type"]), st.text()), st.binary()
)
def test_nothing_an_event_holds_breaks_a_header(headers: dict[str, str], payload: bytes) -> None:
    raw = [(name.replace("ce-", "ce_"), value.encode(errors="replace")) for name, value in headers.items()]
    message = to_message(payload, raw, FORWARDED)
    assert message.payload == payload
    assert set(message.headers) == set(headers)
    assert not [value for value in message.headers.values() if set(value) & set("\r\n\0")]


def test_the_key_is_the_partitionkey() -> None:
    assert to_record(Message({"ce-partitionkey": "k%C3%A9y"}, b"")).key == "kéy".encode()
    event = json.dumps({"specversion": "1.0", "partitionkey": "kéy"}).encode()
    structured = {"content-type": "application/cloudevents+json; charset=utf-8"}
    assert to_record(Message(structured, event)).key == "kéy".encode()


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"3", b'{"partitionkey": 3}', b'{"a": "\xff"}', b"[" * 500])
def test_a_structured_event_without_a_usable_key_has_none(body: bytes) -> None:
    record = to_record(Message({"content-type": "application/cloudevents+json"}, body))
    assert record.key is None
    assert record.value == body


def test_a_tombstone_is_an_event_without_data() -> None:
    assert to_message(None, [], FORWARDED).payload == b""


def test_the_first_of_a_repeated_header_counts_and_only_forwarded_ones_travel() -> None:
    headers = [("ce_id", b"1"), ("CE_ID", b"2"), ("authorization", b"x"), ("Traceparent", b"t"), ("ce_b d", b"x")]
    assert dict(to_message(b"", headers, FORWARDED).headers) == {"ce-id": "1", "traceparent": "t"}


def test_the_size_is_not_less_than_what_is_sent() -> None:
    record = to_record(Message({"ce-id": "1" * 100}, b"x" * 1000))
    assert record.size > 1100
