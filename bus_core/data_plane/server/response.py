"""Server: the bytes of an answer. No network."""

from __future__ import annotations

import functools
import re
import time
from collections.abc import Iterable
from email.utils import formatdate
from http import HTTPStatus

_BODILESS = (204, 304)
_NAME = re.compile(rb"[!#$%&'*+.^`|~0-9A-Za-z_-]+")
_VALUE = re.compile(rb"[\t\x20-\x7e\x80-\xff]*")

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
LAST_CHUNK = b"0\r\n\r\n"


class AnswerHead:
    """The part of an answer's head that its status and headers determine. Not thread-safe.

    Attributes:
        length: the Content-Length that the application set; -1 without one.
        says_close: the application ends the connection.
        has_body: the status allows a body.
    """

    __slots__ = ("_dated", "_has_date", "_lines", "_second", "has_body", "length", "says_close")

    def __init__(self, lines: bytes, length: int, *, says_close: bool, has_date: bool, has_body: bool) -> None:
        self.length = length
        self.says_close = says_close
        self.has_body = has_body
        self._lines = lines
        self._has_date = has_date
        self._second = 0
        self._dated = lines

    def lines(self) -> bytes:
        """Status line and headers, with a Date. They are put together once a second."""
        if not self._has_date:
            second = int(time.time())
            if second != self._second:
                self._second = second
                self._dated = self._lines + f"date: {formatdate(second, usegmt=True)}\r\n".encode("ascii")
        return self._dated


def answer_head(status: int, headers: Iterable[tuple[bytes, bytes]]) -> AnswerHead:
    """Encode the status and headers of an ASGI `http.response.start`.

    Raises:
        RuntimeError: a header would break the answer up, or sets its framing.
    """
    try:
        return _encoded(status, tuple(headers))
    except TypeError:  # ASGI allows lists for the pairs
        return _encoded(status, tuple((bytes(name), bytes(value)) for name, value in headers))


@functools.lru_cache(maxsize=64)  # nearly all answers are one and the same 202
def _encoded(status: int, headers: tuple[tuple[bytes, bytes], ...]) -> AnswerHead:
    lines = [_status_line(status)]
    length, says_close, has_date = -1, False, False
    for name, value in headers:
        if _NAME.fullmatch(name) is None or _VALUE.fullmatch(value) is None:
            raise RuntimeError(f"the header {name!r} of an answer has a name or a value that HTTP does not allow")
        lower = name.lower()
        if lower == b"transfer-encoding":
            raise RuntimeError("the server chooses the Transfer-Encoding of an answer, not the application")
        if lower == b"content-length":
            if status in _BODILESS:
                continue  # RFC 9110, section 8.6
            length = int(value)
        says_close = says_close or (lower == b"connection" and value.lower() == b"close")
        has_date = has_date or lower == b"date"
        lines.append(b"%s: %s\r\n" % (name, value))
    has_body = status not in _BODILESS
    return AnswerHead(b"".join(lines), length, says_close=says_close, has_date=has_date, has_body=has_body)


def whole_answer(head: AnswerHead, body: bytes, ending: bytes, is_head: bool) -> bytes:
    """An answer in one piece.

    Args:
        head: status and headers.
        body: its whole body.
        ending: of `connection_header`.
        is_head: it answers a HEAD, and is sent without its body.

    Raises:
        RuntimeError: the body is not as long as its Content-Length says.
    """
    length = head.length
    if not head.has_body:
        return head.lines() + ending + b"\r\n"
    if length < 0:
        ending = b"content-length: %d\r\n%s" % (len(body), ending)
    elif length != len(body) and not is_head:
        raise RuntimeError(f"an answer has {len(body)} bytes, and its Content-Length says {length}")
    return b"%s%s\r\n%s" % (head.lines(), ending, b"" if is_head else body)


def begun_answer(head: AnswerHead, ending: bytes, chunked: bool) -> bytes:
    """The head of an answer whose body follows in pieces. The arguments are those of `whole_answer`."""
    coding = b"transfer-encoding: chunked\r\n" if chunked else b""
    return b"%s%s%s\r\n" % (head.lines(), coding, ending)


def connection_header(head: AnswerHead, *, is_last: bool, is_1_0: bool) -> bytes:
    """The Connection header of an answer, where it needs one: HTTP/1.1 connections stay open without."""
    if is_last:
        return b"" if head.says_close else b"connection: close\r\n"
    return b"connection: keep-alive\r\n" if is_1_0 else b""


def chunk(piece: bytes) -> bytes:
    """A piece of a chunked body."""
    return b"%x\r\n%s\r\n" % (len(piece), piece) if piece else b""


def refusal(status: int, text: str, *, retry_after: int = 0) -> bytes:
    """An answer of the server itself: one sentence. The connection ends with it."""
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"connection", b"close")]
    if retry_after:
        headers.append((b"retry-after", b"%d" % retry_after))
    head = answer_head(status, headers)
    return whole_answer(head, f"{text}\n".encode(), b"", is_head=False)


def _status_line(status: int) -> bytes:
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:
        phrase = ""
    return f"HTTP/1.1 {status} {phrase}\r\n".encode("ascii")
