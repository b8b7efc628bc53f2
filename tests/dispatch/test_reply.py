"""Reading answers: every framing, in any pieces, and nothing that is not HTTP."""

from __future__ import annotations

import re

import pytest

from bus_core.data_plane.dispatch.reply import MAX_HEAD_BYTES, Reply, ReplyReader
from bus_core.model.errors import DispatchError

CAP = 1000


def read(*pieces: bytes, cap: int = CAP) -> tuple[Reply | None, ReplyReader]:
    reader = ReplyReader()
    for piece in pieces:
        reply = reader.feed(piece, cap)
        if reply is not None:
            return reply, reader
    return None, reader


WHOLE = {
    "length": (b"HTTP/1.1 200 OK\r\nA: 1\r\na: 2\r\nContent-Length: 5\r\n\r\nhello", 200, b"hello"),
    "chunked": (
        (
            b"HTTP/1.1 201 Made\r\nA: 1\r\ntransfer-encoding: chunked\r\n\r\n"
            b"2;x=y\r\nhe\r\n3\r\nllo\r\n0\r\nA-Trailer: no\r\n\r\n"
        ),
        201,
        b"hello",
    ),
    "no content": (b"HTTP/1.1 204 No Content\r\nA: 1\r\n\r\n", 204, b""),
    "interim": (
        (
            b"HTTP/1.1 100 Continue\r\nA: no\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n"
            b"HTTP/1.1 202 Accepted\r\nA: 1\r\ncontent-length: 0\r\n\r\n"
        ),
        202,
        b"",
    ),
    "redirect": (b"HTTP/1.1 302 Found\r\nA: 1\r\nlocation: /b\r\ncontent-length: 2\r\n\r\nno", 302, b"no"),
    "not modified": (b"HTTP/1.1 304 Not Modified\r\nA: 1\r\ncontent-length: 10\r\n\r\n", 304, b""),
}


@pytest.mark.parametrize("name", WHOLE)
def test_an_answer_is_the_same_in_any_two_pieces(name: str) -> None:
    data, status, body = WHOLE[name]
    for cut in range(1, len(data)):
        reply, reader = read(data[:cut], data[cut:])
        assert reply is not None
        assert (reply.status, reply.body, reply.headers["a"]) == (status, body, "1")
        assert reader.reusable
        assert not {"a-trailer", "link"} & set(reply.headers)


@pytest.mark.parametrize("name", WHOLE)
def test_an_answer_arrives_byte_by_byte_and_another_follows(name: str) -> None:
    data, status, body = WHOLE[name]
    reader = ReplyReader()
    for _ in range(2):
        replies = [reader.feed(data[index : index + 1], CAP) for index in range(len(data))]
        assert replies[:-1] == [None] * (len(data) - 1)
        assert replies[-1] is not None
        assert (replies[-1].status, replies[-1].body) == (status, body)
        assert reader.received == 0


def whole_and_cut(data: bytes) -> list[list[bytes]]:
    return [[data], [data[:3], data[3:]], [data[:-3], data[-3:]]]


KNOWN = b"HTTP/1.1 204 No Content\r\nA: 1\r\n\r\n"
FOLLOWING = [
    *(pieces for data, _, _ in WHOLE.values() for pieces in whole_and_cut(data)),
    [b"HTTP/1.1 204 No Content\r\nA: 2\r\n\r\n"],
    [b"HTTP/1.1 204 No Content\r\nA: 1\r\nconnection: close\r\n\r\n"],
    [KNOWN + KNOWN],
    [b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(KNOWN), KNOWN],
    [b"HTTP/1.1 100 Continue\r\n\r\n", KNOWN],
    [KNOWN[9:]],
    [b"no HTTP\r\n"],
    [b""],
]


@pytest.mark.parametrize("pieces", FOLLOWING)
@pytest.mark.parametrize(
    "before", [[KNOWN], [KNOWN + KNOWN], *([data] for data, _, _ in WHOLE.values()), [KNOWN[:9], KNOWN[9:]]]
)
def test_what_a_connection_has_answered_changes_nothing(before: list[bytes], pieces: list[bytes]) -> None:
    """An answer that is known is not parsed again; nothing else may be taken for it."""
    reader = ReplyReader()
    first, second = ([reader.feed(piece, CAP) for piece in before] for _ in range(2))
    assert first == second
    fresh = ReplyReader()
    for piece in pieces:
        try:
            expected = fresh.feed(piece, CAP)
        except DispatchError as error:
            with pytest.raises(DispatchError, match=re.escape(str(error))):
                reader.feed(piece, CAP)
            return
        reply = reader.feed(piece, CAP)
        assert reply == expected
        assert (reader.reusable, reader.received) == (fresh.reusable, fresh.received) or reply is None


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nab",
        b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nabHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\ncd",
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nabHTTP/1.1 2",
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nabHTTP/1.1 200 OK\r\ncontent-length: 2\r\nx",
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nabXX",
    ],
    ids=["close", "1.0", "second answer", "begun answer", "begun answer with the same header", "rubbish"],
)
def test_a_connection_that_is_not_fit_for_more(data: bytes) -> None:
    reply, reader = read(data)
    assert reply is not None
    assert (reply.status, reply.body) == (200, b"ab")
    assert not reader.reusable


def test_a_close_ends_a_body_without_length() -> None:
    reply, reader = read(b"HTTP/1.1 200 OK\r\nA: 1\r\n\r\nab", b"cd", b"")
    assert reply is not None
    assert (reply.body, reply.headers["a"]) == (b"abcd", "1")
    assert not reader.reusable
    empty, _ = read(b"HTTP/1.1 200 OK\r\n\r\n", b"")
    assert empty is not None
    assert empty.body == b""


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "without an answer"),
        (b"HTTP/1.1 200 O", "in the middle"),
        (b"HTTP/1.1 200 OK\r\nA: 1\r\n", "in the middle"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n", "in the middle"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nabcd", "in the middle"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n", "in the middle"),
        (b"HTTP/1.1 100 Continue\r\n\r\n", "in the middle"),
    ],
)
def test_a_close_cuts_short_everything_else(data: bytes, problem: str) -> None:
    pieces = [data, b""] if data else [b""]
    with pytest.raises(DispatchError, match=problem):
        read(*pieces)


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"SSH-2.0-OpenSSH_9.6\r\n", "not valid HTTP"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\nab", "not valid HTTP"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n", "not valid HTTP"),
        (b"HTTP/1.1 200 OK\r\na: b\r\n c\r\ncontent-length: 0\r\n\r\n", "not valid HTTP"),
        (b"HTTP/1.1 200 OK\r\na: b\0c\r\ncontent-length: 0\r\n\r\n", "not valid HTTP"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n", "gzip, chunked"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\nab", "gzip"),
    ],
)
def test_what_is_not_understood_is_refused(data: bytes, problem: str) -> None:
    with pytest.raises(DispatchError, match=problem):
        read(data)


def test_a_switch_of_protocols_is_an_answer_that_ends_the_connection() -> None:
    reply, reader = read(b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\nab")
    assert reply is not None
    assert (reply.status, reply.headers["upgrade"], reply.body) == (101, "x", b"")
    assert not reader.reusable


def test_a_reply_up_to_the_cap_is_read_and_not_a_byte_more() -> None:
    exact, _ = read(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n" + b"x" * 1000)
    assert exact is not None
    assert len(exact.body) == CAP
    with pytest.raises(DispatchError, match="larger than the cap of 1000 bytes"):
        read(b"HTTP/1.1 200 OK\r\ncontent-length: 1001\r\n\r\n")
    with pytest.raises(DispatchError, match="larger than the cap"):
        read(b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 1001)
    with pytest.raises(DispatchError, match="larger than the cap"):
        read(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3e9\r\n" + b"x" * 1001 + b"\r\n0\r\n\r\n")


@pytest.mark.parametrize("head", [b"content-length: 5000", b"transfer-encoding: chunked"])
def test_the_body_of_a_refusal_is_cut_at_the_cap(head: bytes) -> None:
    body = b"x" * 5000
    framed = body if b"length" in head else b"1388\r\n" + body
    reply, reader = read(b"HTTP/1.1 500 Oops\r\n" + head + b"\r\n\r\n", framed)
    assert reply is not None
    assert (reply.status, reply.body) == (500, b"x" * CAP)
    assert not reader.reusable


@pytest.mark.parametrize(
    "endless",
    [
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"a: b\r\n",
        b"aaaa",
        b"a: " + b"b" * 100,
    ],
    ids=["interim answers", "headers", "a header's name", "a header's value"],
)
def test_headers_are_bounded(endless: bytes) -> None:
    start = [] if endless.startswith(b"HTTP") else [b"HTTP/1.1 200 OK\r\n"]
    pieces = MAX_HEAD_BYTES // len(endless)
    reply, reader = read(*start, *[endless] * (pieces - 10))
    assert reply is None
    assert reader.received > MAX_HEAD_BYTES * 0.8
    with pytest.raises(DispatchError, match="bytes of headers"):
        read(*start, *[endless] * (pieces + 10))


def test_trailers_and_chunk_extensions_are_bounded() -> None:
    for piece in (b"1;" + b"x" * MAX_HEAD_BYTES, b"1\r\nx\r\n0\r\na: " + b"b" * MAX_HEAD_BYTES):
        with pytest.raises(DispatchError, match="bytes of headers"):
            read(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", piece, b"y")


def test_small_chunks_are_not_taken_for_headers() -> None:
    chunks = b"1\r\nx\r\n" * 20_000
    reply, _ = read(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", chunks, b"0\r\n\r\n", cap=20_000)
    assert reply is not None
    assert reply.body == b"x" * 20_000


def test_header_values_are_utf_8_or_else_latin_1() -> None:
    reply, _ = read("HTTP/1.1 200 OK\r\nA: größe\r\n".encode() + b"B: gr\xf6\xdfe\r\ncontent-length: 0\r\n\r\n")
    assert reply is not None
    assert dict(reply.headers) == {"a": "größe", "b": "größe", "content-length": "0"}
    assert len(reply.headers) == 3
    assert "größe" in repr(reply.headers)
