"""Server: the bytes of an answer. No network."""

from __future__ import annotations

import functools
import re
import time
from collections.abc import Iterable
from email.utils import formatdate
from http import HTTPStatus
from typing import NamedTuple

_BODILESS = (204, 304)
_NAME = re.compile(rb"[!#$%&'*+.^`|~0-9A-Za-z_-]+")
_VALUE = re.compile(rb"[\t\x20-\x7e\x80-\xff]*")

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
LAST_CHUNK = b"0\r\n\r\n"


class AnswerHead(NamedTuple):
    """The part of an answer's head that its status and headers determine.

    Attributes:
        status: the HTTP status code.
        lines: status line and headers.
        length: the Content-Length that the application set; -1 without one.
        says_close: the application ends the connection.
        has_date: the application set a Date.
    """

    status: int
    lines: bytes
    length: int
    says_close: bool
    has_date: bool

    @property
    def has_body(self) -> bool:
        return self.status not in _BODILESS


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
    return AnswerHead(status, b"".join(lines), length, says_close, has_date)


def whole_answer(head: AnswerHead, body: bytes, *, is_last: bool, keep_alive: bool, is_head: bool) -> bytes:
    """An answer in one piece.

    Args:
        head: status and headers.
        body: its whole body.
        is_last: the connection ends with it.
        keep_alive: say so, which HTTP/1.0 needs.
        is_head: it answers a HEAD, and is sent without its body.

    Raises:
        RuntimeError: the body is not as long as its Content-Length says.
    """
    lines = [head.lines]
    if not head.has_date:
        lines.append(_date_line(int(time.time())))
    if head.status in _BODILESS:
        body = b""
    elif head.length < 0:
        lines.append(b"content-length: %d\r\n" % len(body))
    elif head.length != len(body) and not is_head:
        raise RuntimeError(f"an answer has {len(body)} bytes, and its Content-Length says {head.length}")
    if is_last:
        if not head.says_close:
            lines.append(b"connection: close\r\n")
    elif keep_alive:
        lines.append(b"connection: keep-alive\r\n")
    lines.append(b"\r\n" if is_head else b"\r\n" + body)
    return b"".join(lines)


def begun_answer(head: AnswerHead, *, is_last: bool, keep_alive: bool, chunked: bool) -> bytes:
    """The head of an answer whose body follows in pieces."""
    lines = [head.lines]
    if not head.has_date:
        lines.append(_date_line(int(time.time())))
    if chunked:
        lines.append(b"transfer-encoding: chunked\r\n")
    if is_last:
        if not head.says_close:
            lines.append(b"connection: close\r\n")
    elif keep_alive:
        lines.append(b"connection: keep-alive\r\n")
    lines.append(b"\r\n")
    return b"".join(lines)


def chunk(piece: bytes) -> bytes:
    """A piece of a chunked body."""
    return b"%x\r\n%s\r\n" % (len(piece), piece) if piece else b""


def refusal(status: int, text: str, *, retry_after: int = 0) -> bytes:
    """An answer of the server itself: one sentence. The connection ends with it."""
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"connection", b"close")]
    if retry_after:
        headers.append((b"retry-after", b"%d" % retry_after))
    head = answer_head(status, headers)
    return whole_answer(head, f"{text}\n".encode(), is_last=True, keep_alive=False, is_head=False)


def _status_line(status: int) -> bytes:
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:
        phrase = ""
    return f"HTTP/1.1 {status} {phrase}\r\n".encode("ascii")


@functools.lru_cache(maxsize=1)
def _date_line(second: int) -> bytes:
    return f"date: {formatdate(second, usegmt=True)}\r\n".encode("ascii")
