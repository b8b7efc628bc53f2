"""Server: reads the requests of one connection, one after the other, with llhttp. No network."""

from __future__ import annotations

import re
from collections.abc import Mapping

import httptools

from bus_core.data_plane.server.head import (
    HEAD,
    MAX_HEAD,
    MAX_LINE,
    Fields,
    RefusedError,
    check_beginning,
    check_fields,
    check_head,
)
from bus_core.data_plane.server.target import ROOT, split_target

_CHUNK_OVERHEAD = 8
"""Bytes of framing allowed per byte of body: `1 CRLF x CRLF`, the smallest chunk, needs five."""

_END = b"\r\n\r\n"
_NOT_IN_TRAILERS = frozenset((b"host", b"content-length", b"transfer-encoding"))
_UPGRADE = re.compile(rb"\r\n(?i:upgrade):[^\r]*")


# wide: one object is filled by the parser's callbacks and read by the exchange.
class RequestReader:
    """Reads requests. Not thread-safe. After a `RefusedError` the reader is spent, like the connection.

    Attributes:
        method: for example b"POST".
        version: for example "1.1".
        target: the split request target.
        fields: the header fields, names in lower case. Names with an underscore are left out, because CGI-like
            applications behind a subscriber cannot tell them from names with a dash.
        keep_alive: the sender allows another request on the connection.
        expects_continue: the sender waits for `100 Continue` before it sends the body.
        is_complete: head and body have arrived.
        body: the part of the body that has arrived and was not taken.
    """

    # No __slots__: the parser looks its callbacks up by name.

    def __init__(self) -> None:
        self.fields: Fields = []
        self.method = b""
        self.version = ""
        self.target = ROOT
        self.keep_alive = True
        self.expects_continue = False
        self.is_complete = False
        self.body: bytes | bytearray = b""
        self._url = b""
        self._found: Fields = []  # of the head, and later of the trailer
        self._partial = bytearray()
        self._left = -1  # bytes of the body that are still to come; -1 for a chunked one
        self._wire = self._size = 0  # of a chunked body: bytes with and without its framing
        self._tail = b""
        self._parser = httptools.HttpRequestParser(self)

    @property
    def has_begun(self) -> bool:
        """A part of a head has arrived."""
        return bool(self._partial)

    def read_head(self, data: bytes) -> bytes | None:
        """Read the head of the next request.

        Args:
            data: the bytes that have arrived since the last call.

        Returns:
            the bytes behind the head; None while the head is incomplete.

        Raises:
            RefusedError: the request is malformed, or beyond a bound.
        """
        if self._partial or (found := HEAD.match(data)) is None or (end := found.end()) > MAX_LINE:
            return self._collect_head(data)
        self.version = "1.0" if found.lastindex else "1.1"
        self._read_fields(data[:end])
        return data[end:]

    def read_body(self, data: bytes) -> bytes:
        """Read the body, or a part of it, into `body`.

        Returns:
            the bytes behind the request; empty while it is incomplete.

        Raises:
            RefusedError: the body's framing is malformed, or far larger than its content.
        """
        if self._left < 0:
            return self._read_chunks(data)
        left = self._left - len(data)
        rest = b""
        if left < 0:
            data, rest, left = data[:left], data[left:], 0
        self._left = left
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            raise _refused(error) from None
        if self.is_complete != (left == 0):
            raise RefusedError(400, "the length of the body is ambiguous")
        return rest

    def take_body(self) -> bytes:
        """Hand over the part of the body that has arrived."""
        body, self.body = self.body, b""
        return body if isinstance(body, bytes) else bytes(body)

    def _collect_head(self, data: bytes) -> bytes | None:
        """Read a head that arrives in pieces, that an empty line precedes, or that is refused."""
        known = len(self._partial)
        self._partial += data
        # RFC 9112, section 2.2: an empty line before the request line is skipped.
        begin = 2 if self._partial[:2] == b"\r\n" else 0
        end = self._partial.find(_END, max(begin, known - 3))
        if end < 0:
            if len(self._partial) > begin:
                check_beginning(self._partial[begin:] if begin else self._partial, max(known - begin, 0))
            return None
        head, rest = bytes(self._partial[begin : end + 4]), bytes(self._partial[end + 4 :])
        self._partial.clear()
        self.version = check_head(head)
        self._read_fields(head)
        return rest

    def _read_fields(self, head: bytes) -> None:
        self.method = self._parse(head)
        fields = self.fields
        if b"_" in head:
            fields[:] = [field for field in fields if b"_" not in field[0]]
        known = dict(fields)
        check_fields(fields, known, self.version)
        if self._url == b"/" and self.method != b"CONNECT":
            self.target = ROOT
        else:
            self.target = split_target(self.method, self._url)
            if self.target.host is not None:
                fields[:] = [(b"host", self.target.host), *(field for field in fields if field[0] != b"host")]
        if not self.is_complete:
            self._expect_body(known)

    def _parse(self, head: bytes) -> bytes:
        """Let the parser read a whole head.

        Returns:
            the method.
        """
        self._found = []
        self._url = b""
        self.is_complete = False
        try:
            self._parser.feed_data(head)
        except httptools.HttpParserUpgrade:
            if self._parser.get_method() == b"CONNECT":
                self.keep_alive = False  # bytes behind it would belong to the tunnel that is not opened
                return b"CONNECT"
            # Nothing here speaks another protocol. The request is the same without the offer (RFC 9110, section 7.8).
            self._parser = httptools.HttpRequestParser(self)
            return self._parse(_UPGRADE.sub(b"", head))
        except httptools.HttpParserInvalidMethodError:
            # llhttp knows the registered methods only. The framing of a request does not depend on its method.
            self._parser = httptools.HttpRequestParser(self)
            method, _, rest = head.partition(b" ")
            self._parse(b"POST " + rest)
            return method
        except httptools.HttpParserError as error:
            raise _refused(error) from None
        return self._parser.get_method()

    def _expect_body(self, known: Mapping[bytes, bytes]) -> None:
        length = known.get(b"content-length")
        if length is not None:
            self._left = int(length)
        elif b"transfer-encoding" in known:
            self._left = -1
            self._wire = self._size = 0
            self._tail = b""
        else:
            raise RefusedError(400, "the length of the body is ambiguous")
        expectation = known.get(b"expect")
        if expectation is not None:
            self.expects_continue = expectation.lower() == b"100-continue" and self.version != "1.0"

    def _read_chunks(self, data: bytes) -> bytes:
        """A chunked request ends with an empty line, like a head. The parser does not say where a request ends, so it
        gets the bytes up to an empty line at a time."""
        known = len(self._tail)
        joined = self._tail + data
        view = memoryview(joined)
        begin = known
        while begin < len(joined) and not self.is_complete:
            found = joined.find(_END, max(begin - 3, 0))
            end = found + 4 if found >= 0 else len(joined)
            try:
                self._parser.feed_data(view[begin:end])
            except httptools.HttpParserError as error:
                raise _refused(error) from None
            self._wire += end - begin
            begin = end
            if self._wire - self._size > MAX_HEAD + _CHUNK_OVERHEAD * self._size:
                raise RefusedError(400, "the framing of the chunked body is far larger than the body")
        if self.is_complete and not _NOT_IN_TRAILERS.isdisjoint(name for name, _ in self._found):
            raise RefusedError(400, "the trailer of the request has a field that belongs into its head")
        self._tail = joined[-3:]
        return joined[begin:]

    # Called by the parser.

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._found.append((name.lower(), value.rstrip()))

    def on_headers_complete(self) -> None:
        self.fields, self._found = self._found, []
        self.keep_alive = self._parser.should_keep_alive()
        self.expects_continue = False

    def on_body(self, part: bytes) -> None:
        self._size += len(part)
        if not self.body:
            self.body = part
        elif isinstance(self.body, bytearray):
            self.body += part
        else:
            self.body = bytearray(self.body) + part

    def on_message_complete(self) -> None:
        self.is_complete = True


def _refused(error: httptools.HttpParserError) -> RefusedError:
    return RefusedError(400, f"the request is not valid HTTP/1.1: {error}")
