"""The quick way through a request's head takes and refuses what gunicorn's own parser does, and says the same."""

from __future__ import annotations

from typing import Any

import pytest
from gunicorn.asgi.parser import PythonProtocol
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bus_core.server.parser import RequestParser

HEADS = [
    b"Host: a.b",
    b"Host: a.b\r\nContent-Length: 3",
    b"Host: a.b\r\nTransfer-Encoding: chunked",
    b"Content-Length: 3\r\nContent-Length: 3",
    b"Content-Length: 3\r\nTransfer-Encoding: chunked",
    b"Host: a\r\nHost: b",
    b"Host : a",
    b" Host: a",
    b"Host: a\r\n folded",
    b"Host: a\rb",
    b"Host: a\nb",
    b"Host: a\x00b",
    b"Host: a\x7fb",
    b"Host: \t a\xff \t",
    b"no colon",
    b": no name",
    b"N\xc3me: x",
    b"a:" + b"x" * 8186,
    b"a:" + b"x" * 8190,
    b"a:" + b"x" * 20_000,
    b"\r\n".join(b"a: %d" % number for number in range(100)),
    b"\r\n".join(b"a: %d" % number for number in range(101)),
    b"Connection: close\r\nHost: a",
]
TAILS = [b"", b"abc", b"3\r\nabc\r\n0\r\n\r\n", b"abcPOST / HTTP/1.1\r\nHost: c\r\n\r\n"]


def told(kind: type[Any], pieces: list[bytes]) -> list[object]:
    """Everything that a server learns from a parser."""
    events: list[object] = []
    parser: Any = kind(
        on_headers_complete=lambda: events.append(("head", list(parser.headers), parser.content_length)),
        on_body=lambda part: events.append(("body", part)),
        on_message_complete=lambda: events.append("complete"),
    )
    try:
        for piece in pieces:
            parser.feed(piece)
    except Exception as error:
        return [*events, type(error), str(error)]
    return [*events, parser.method, parser.is_chunked, parser.should_keep_alive, parser.is_complete, parser.remaining()]


def agree(data: bytes, cuts: list[int]) -> None:
    places = sorted({cut % (len(data) + 1) for cut in cuts})
    pieces = [data[start:end] for start, end in zip([0, *places], [*places, len(data)], strict=True)]
    assert told(RequestParser, pieces) == told(PythonProtocol, pieces)


@pytest.mark.parametrize("tail", TAILS)
@pytest.mark.parametrize("head", HEADS)
def test_known_heads(head: bytes, tail: bytes) -> None:
    data = b"POST / HTTP/1.1\r\n" + head + b"\r\n\r\n" + tail
    for cuts in ([], [20], [len(data) - len(tail) - 1], list(range(30))):
        agree(data, cuts)


@pytest.mark.parametrize("place", ["name", "value"])
def test_every_byte(place: str) -> None:
    for number in range(256):
        byte = bytes([number])
        line = b"a" + byte + b"b: c" if place == "name" else b"a: b" + byte + b"c"
        agree(b"POST / HTTP/1.1\r\n" + line + b"\r\nhost: x\r\n\r\n", [])


LINES = st.lists(
    st.one_of(
        st.sampled_from(HEADS), st.binary(max_size=12), st.builds(lambda a, b: a + b":" + b, st.binary(), st.binary())
    ),
    max_size=6,
)


@settings(max_examples=150, deadline=None)
@given(lines=LINES, end=st.sampled_from([b"\r\n", b"\n", b"\r"]), cuts=st.lists(st.integers(0, 999), max_size=4))
@example(lines=[b"Host: a"], end=b"\n", cuts=[])
def test_any_head(lines: list[bytes], end: bytes, cuts: list[int]) -> None:
    agree(b"POST / HTTP/1.1\r\n" + end.join(lines) + b"\r\n\r\n", cuts)
