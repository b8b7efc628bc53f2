"""Dispatch: reads the answer to one request: its status, headers and body, under bounds. No network."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import httptools

from bus_core.model.errors import DispatchError

MAX_HEAD_BYTES = 64 * 1024
"""Most bytes of an answer that are not its body: status line, headers, interim answers, trailers."""

_CHUNK_OVERHEAD = 8
"""Bytes of framing allowed per byte of body: `1 CRLF x CRLF`, the smallest chunk, needs five."""

_REMEMBERED_BYTES = 1024
"""The longest answer in bytes that a reader remembers."""

_ENDED = b""
"""Not a header name. While it is present, no other message has begun behind the answer."""


class Reply(NamedTuple):
    """A complete answer. Immutable (a NamedTuple, because a frozen dataclass takes twice as long to make).

    Attributes:
        status: the HTTP status code.
        headers: names in lower case; the first value of a repeated header.
        body: as it was sent: a content-encoding is not undone.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes


class ReplyHeaders(Mapping[str, str]):
    """Headers that are decoded at first use. Most answers are an empty 202, whose headers are never used."""

    __slots__ = ("_decoded", "_raw")

    def __init__(self, raw: Mapping[bytes, bytes]) -> None:
        self._raw = raw
        self._decoded: dict[str, str] | None = None

    def __getitem__(self, name: str) -> str:
        return self._decode()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._decode())

    def __len__(self) -> int:
        return len(self._decode())

    def __repr__(self) -> str:
        return repr(self._decode())

    def _decode(self) -> dict[str, str]:
        if self._decoded is None:
            decoded: dict[str, str] = {}
            for raw_name, raw_value in self._raw.items():
                try:
                    value = raw_value.decode()
                except UnicodeDecodeError:
                    # What is not UTF-8 is ISO 8859-1, which header values were before (RFC 9110, section 5.5).
                    value = raw_value.decode("latin-1")
                decoded.setdefault(raw_name.decode("latin-1").lower(), value)
            self._decoded = decoded
        return self._decoded


_NO_HEADERS = ReplyHeaders({})


class ReplyReader:
    """The answers of one connection, one after the other. Not thread-safe: a connection serves one exchange at a time.

    The texts of its errors begin with the verb: the connection puts the destination in front. After an error neither
    the reader nor the connection can be used again.

    Attributes:
        received: bytes of the answer that is being read; 0 between answers.
        reusable: the connection may carry another exchange. Valid once `feed` has returned an answer.
    """

    # No __slots__: the parser finds its callbacks by name.

    def __init__(self) -> None:
        self.received = 0
        self.reusable = False
        self._complete = False
        self._status = 0
        self._headers = _NO_HEADERS
        self._body: bytes | bytearray = b""
        # The last answer without a body. A subscriber gives the same answer to each event, except for its Date. To
        # compare is cheaper than to parse: it saves a tenth of a further delivery.
        self._known: bytes | None = None
        self._known_reply: Reply | None = None
        self._raw: dict[bytes, bytes] = {}
        # A dict's own methods spare a Python call per header; `setdefault`: the first of a repeated header wins.
        self.on_message_begin = self._raw.clear
        self.on_header = self._raw.setdefault
        self._parser = httptools.HttpResponseParser(self)

    def feed(self, data: bytes, cap: int) -> Reply | None:
        """Take bytes that have arrived; none (`b""`) means that the other side has closed.

        Args:
            data: the bytes.
            cap: most bytes of a body. That of a 2xx answer may not have more, that of any other is cut there.

        Returns:
            the answer once it is complete (whatever its status), None before.

        Raises:
            DispatchError: the answer is malformed, cut short, or larger than its bounds.
        """
        if not self.received and data == self._known:
            self.reusable = True
            return self._known_reply
        self.received += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            # A final answer without a request for it (RFC 9110, section 15.2.2). The bytes after it are not HTTP.
            self._status, self._headers = self._parser.get_status_code(), ReplyHeaders(self._raw.copy())
            self._body, self._complete = b"", True
        except httptools.HttpParserError as error:
            if not self._complete:
                raise DispatchError(f"gave an answer that is not valid HTTP/1.1: {error}") from None
        if not self._complete or self._body:
            if not data:
                self._check_end()
            elif self._check_bounds(cap):
                return None
        if _ENDED not in self._raw:
            self.reusable = False  # the bytes behind the answer belong to no request
        reply = Reply(self._status, self._headers, bytes(self._body))
        if self.reusable and not reply.body and self.received == len(data) <= _REMEMBERED_BYTES:
            self._known, self._known_reply = data, reply
        self.received = self._status = 0
        self._complete = False
        self._body = b""
        return reply

    def _check_end(self) -> None:
        """A close ends a body that has no length, and cuts short everything else (RFC 9112, section 8)."""
        if not self.received:
            raise DispatchError("closed the connection without an answer")
        if not self._status or "content-length" in self._headers or "transfer-encoding" in self._headers:
            raise DispatchError("closed the connection in the middle of its answer")
        self.reusable = False

    def _check_bounds(self, cap: int) -> bool:
        """Whether to read on."""
        size = len(self._body)
        if self.received - size > MAX_HEAD_BYTES + _CHUNK_OVERHEAD * size:
            raise DispatchError(f"gave an answer with more than {MAX_HEAD_BYTES} bytes of headers")
        if not self._status:
            return True
        coding = self._headers.get("transfer-encoding", "chunked")
        if coding.strip().lower() != "chunked":
            raise DispatchError(f"used the transfer coding {coding[:80]!r}, which was not asked for")
        if 200 <= self._status < 300:
            length = self._headers.get("content-length", "")
            if size > cap or (length.isdigit() and int(length) > cap):
                raise DispatchError(f"gave a reply larger than the cap of {cap} bytes")
        elif size > cap:
            # People read the body of a refusal: its beginning is enough.
            self._body = self._body[:cap]
            self._complete = True
            self.reusable = False
        return not self._complete

    # The parser calls these. After `_complete` they see bytes that answer nothing, and leave the answer as it is.

    def on_headers_complete(self) -> None:
        if not self._complete:
            status = self._parser.get_status_code()
            if status >= 200:  # below 200 it is an interim answer (RFC 9110, section 15.2), another follows
                self._status = status
                self._headers = ReplyHeaders(self._raw.copy())  # a copy, because trailers come into `_raw` as well

    def on_body(self, part: bytes) -> None:
        if self._complete:
            return
        if not self._body:
            self._body = part
        elif isinstance(self._body, bytearray):
            self._body += part
        else:
            # One growing buffer: a list of a million one-byte chunks would cost many times the cap.
            self._body = bytearray(self._body) + part

    def on_message_complete(self) -> None:
        if self._status and not self._complete:
            self._complete = True
            self.reusable = self._parser.should_keep_alive()
            self._raw[_ENDED] = b""
