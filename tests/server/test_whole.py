"""The quick way takes only what gunicorn's own parser takes, reads the same in it, and leaves everything else alone."""

from __future__ import annotations

from typing import Any

import pytest
from gunicorn.asgi.parser import PythonProtocol
from gunicorn.asgi.protocol import CallbackRequest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bus_core.data_plane.server.whole import read

PLAIN = b"POST / HTTP/1.1\r\nHost: orders.default\r\nce-id: \t 1 \t\r\nContent-Length: 3\r\n\r\nabc"


def read_by_gunicorn(data: bytes) -> tuple[str, list[tuple[bytes, bytes]], bytes, bool]:
    """The same, with gunicorn's parser. It must find one request, complete, and plain in every respect."""
    body: list[bytes] = []
    requests: list[Any] = []
    parser: Any = PythonProtocol(
        on_headers_complete=lambda: requests.append(CallbackRequest.from_parser(parser)), on_body=body.append
    )
    parser.feed(data)
    (request,) = requests
    assert parser.is_complete
    assert not parser.remaining()
    assert not parser.is_chunked
    assert not request.may_upgrade()
    assert not request._expect_100_continue
    assert (request.method, request.query, request.version, request.scheme) == ("POST", "", (1, 1), "http")
    assert request.raw_path == request.path.encode()
    return request.path, request.headers_bytes, b"".join(body), request.should_close()


def agree(data: bytes) -> bool:
    """Whether it went the quick way."""
    found = read(data)
    if found is not None:
        assert found == read_by_gunicorn(data)
    return found is not None


def test_what_is_plain_goes_the_quick_way() -> None:
    assert agree(PLAIN)
    assert read(PLAIN) == (
        "/",
        [(b"host", b"orders.default"), (b"ce-id", b"1"), (b"content-length", b"3")],
        b"abc",
        False,
    )
    assert agree(PLAIN.replace(b"3\r\n\r\nabc", b"0\r\n\r\n"))
    assert agree(PLAIN.replace(b"POST /", b"POST /a/b~c;d=e@f:g"))
    for then in (b"keep-alive", b"Keep-Alive", b"close", b"Close"):
        assert agree(PLAIN.replace(b"ce-id:", b"Connection: " + then + b"\r\nce-id:"))
    assert agree(PLAIN.replace(b"1 \t", b"\xc3\xbc \t"))


OTHERS = {
    "another method": PLAIN.replace(b"POST", b"PUT"),
    "another version": PLAIN.replace(b"1.1", b"1.0"),
    "an empty line before": b"\r\n" + PLAIN,
    "two spaces": PLAIN.replace(b"POST /", b"POST  /"),
    "a query": PLAIN.replace(b"POST /", b"POST /?a"),
    "a path to decode": PLAIN.replace(b"POST /", b"POST /%41"),
    "an absolute target": PLAIN.replace(b"POST /", b"POST http://a/"),
    "half a head": PLAIN[:40],
    "half a body": PLAIN[:-1],
    "another request behind it": PLAIN + PLAIN,
    "no length": PLAIN.replace(b"Content-Length: 3\r\n\r\nabc", b"a: b\r\n\r\n"),
    "two lengths": PLAIN.replace(b"Content-Length", b"Content-Length: 3\r\nContent-Length"),
    "a length with a sign": PLAIN.replace(b"h: 3", b"h: +3"),
    "a length with an underscore": PLAIN.replace(b"h: 3\r\n\r\nabc", b"h: 1_0\r\n\r\n0123456789"),
    "a length and chunks": PLAIN.replace(b"ce-id", b"Transfer-Encoding: chunked\r\nce-id"),
    "two hosts": PLAIN.replace(b"ce-id", b"host: b\r\nce-id"),
    "a field twice": PLAIN.replace(b"ce-id", b"a: b\r\nA: c\r\nce-id"),
    "an expectation": PLAIN.replace(b"ce-id", b"Expect: 100-continue\r\nce-id"),
    "an upgrade": PLAIN.replace(b"ce-id", b"Upgrade: h2c\r\nce-id"),
    "a connection for something else": PLAIN.replace(b"ce-id", b"Connection: close, te\r\nce-id"),
    "an underscore in a name": PLAIN.replace(b"ce-id", b"ce_id"),
    "a name that proxies set": PLAIN.replace(b"ce-id", b"X-Forwarded-Proto"),
    "a space before the colon": PLAIN.replace(b"ce-id:", b"ce-id :"),
    "a folded line": PLAIN.replace(b"ce-id:", b"a: b\r\n c: d\r\nce-id:"),
    "a bare CR": PLAIN.replace(b"ce-id:", b"a: b\rc\r\nce-id:"),
    "a bare LF": PLAIN.replace(b"ce-id:", b"a: b\nc: d\r\nce-id:"),
    "only LFs": PLAIN.replace(b"\r\n", b"\n"),
    "a NUL": PLAIN.replace(b"ce-id:", b"a: \x00\r\nce-id:"),
    "a DEL": PLAIN.replace(b"ce-id:", b"a: \x7f\r\nce-id:"),
    "no colon": PLAIN.replace(b"ce-id:", b"a\r\nce-id:"),
    "no name": PLAIN.replace(b"ce-id:", b": a\r\nce-id:"),
    "a long field": PLAIN.replace(b"ce-id:", b"a: " + b"x" * 4000 + b"\r\nce-id:"),
    "many fields": PLAIN.replace(b"ce-id:", b"".join(b"a%d: b\r\n" % number for number in range(60)) + b"ce-id:"),
}


@pytest.mark.parametrize("what", OTHERS)
def test_anything_else_is_left_to_gunicorn(what: str) -> None:
    assert OTHERS[what] != PLAIN
    assert read(OTHERS[what]) is None


@pytest.mark.parametrize("place", [b"POST /|", b"Host|", b"ce-id: |", b"Content-Length: |", b"POST|", b"HTTP/1.|"])
def test_every_byte_everywhere(place: bytes) -> None:
    before = place.removesuffix(b"|")
    for number in range(256):
        agree(PLAIN.replace(before, before + bytes([number]), 1))


PIECES = st.lists(
    st.one_of(
        st.sampled_from(
            [b"Host: a", b"Content-Length: 3", b"Connection: ", b"Transfer-Encoding:", b"close", b"chunked"]
        ),
        st.sampled_from(
            [b"\r\n", b"\n", b"\r", b": ", b":", b" ", b"\t", b"POST / HTTP/1.1\r\n", b"\x00", b"3", b"abc"]
        ),
        st.binary(max_size=4),
    ),
    max_size=9,
)


@settings(max_examples=400, deadline=None)
@given(pieces=PIECES, at=st.integers(0, len(PLAIN)))
@example(pieces=[], at=0)
def test_anything_put_in_anywhere(pieces: list[bytes], at: int) -> None:
    agree(PLAIN[:at] + b"".join(pieces) + PLAIN[at:])
