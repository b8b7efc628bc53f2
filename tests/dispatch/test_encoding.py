"""An event's bytes: made once, framed by us, and impossible to break out of."""

from __future__ import annotations

import pytest

from bus_core.data_plane.dispatch import encode
from bus_core.data_plane.dispatch.encoding import FRAMING_HEADERS
from bus_core.model.errors import InvalidMessageError
from bus_core.model.headers import ForwardedHeaders
from bus_core.model.message import Message


def test_headers_then_length_then_an_empty_line() -> None:
    event = encode(Message({"CE-Id": "1", "content-type": "text/plain"}, b"abc"))
    assert event.head == b"ce-id: 1\r\ncontent-type: text/plain\r\ncontent-length: 3\r\n\r\n"


def test_the_payload_is_the_very_object() -> None:
    payload = b"x" * 100_000
    assert encode(Message({}, payload)).payload is payload


def test_values_are_sent_as_utf_8() -> None:
    assert encode(Message({"ce-subject": "größe €"}, b"")).head.startswith("ce-subject: größe €\r\n".encode())


@pytest.mark.parametrize("name", sorted(FRAMING_HEADERS))
def test_framing_is_ours(name: str) -> None:
    assert encode(Message({name: "7"}, b"ab")).head == b"content-length: 2\r\n\r\n"


def test_only_forwarded_headers_where_a_rule_is_given() -> None:
    message = Message({"ce-id": "1", "cookie": "c", "x-tenant": "t"}, b"")
    assert encode(message, ForwardedHeaders()).head == b"ce-id: 1\r\ncontent-length: 0\r\n\r\n"
    extended = encode(message, ForwardedHeaders(["x-tenant"]))
    assert extended.head == b"ce-id: 1\r\nx-tenant: t\r\ncontent-length: 0\r\n\r\n"


@pytest.mark.parametrize(
    ("value", "label"), [("a\r\nx: y", "CR"), ("a\rb", "CR"), ("a\nb", "LF"), ("a\0b", "NUL"), ("\n", "LF")]
)
def test_a_value_cannot_end_its_line(value: str, label: str) -> None:
    with pytest.raises(InvalidMessageError, match=f"ce-subject contains {label}"):
        encode(Message({"ce-id": "1", "ce-subject": value}, b""))


@pytest.mark.parametrize("name", ["", "a b", "a:b", "a\r\nb", "a\0", "ä", "a\n", "a(b)"])
def test_a_name_is_a_token(name: str) -> None:
    with pytest.raises(InvalidMessageError, match="header name"):
        encode(Message({name: "1"}, b""))


def test_a_lone_surrogate_is_refused() -> None:
    with pytest.raises(InvalidMessageError, match="surrogate"):
        encode(Message({"ce-subject": "\udce4"}, b""))
