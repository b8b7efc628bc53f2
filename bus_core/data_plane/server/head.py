"""Server: the syntax and the bounds of a request head. No network.

The parser (llhttp) decides the framing of a request. It is lenient in places, so that a head must match the grammar of
RFC 9112 before the parser reads it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

MAX_LINE = 4094
MAX_FIELD = 8190
MAX_FIELDS = 100
MAX_HEAD = 64 * 1024
"""Bytes of a request line, of a field line, number of fields, and bytes of a whole head."""

Fields = list[tuple[bytes, bytes]]

# RFC 9112, sections 3 and 5; RFC 9110, sections 5.1 and 5.5: single spaces in the request line, no space before a
# colon, no folded line, no bare CR or LF, no control character but the tab. A method is in capitals.
HEAD = re.compile(
    rb"[A-Z][!$%&'*+.^`|~0-9A-Z_-]{2,19} [!-~]+ HTTP/1\.(?:1|(0))\r\n"
    rb"(?:[!#$%&'*+.^`|~0-9A-Za-z_-]+:[\t\x20-\x7e\x80-\xff]*\r\n)*\r\n"
)
"""A whole head. Its group is set if the version is 1.0."""

_LINE = re.compile(rb"[A-Z][!$%&'*+.^`|~0-9A-Z_-]{2,19} [!-~]+ HTTP/1\.[01]\r\n")
_NEVER_VALID = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|\r[^\n]|(?<!\r)\n|\n[ \t]")

_SPECIAL = frozenset(
    (b"transfer-encoding", b"expect", b"x-forwarded-proto", b"x-forwarded-protocol", b"x-forwarded-ssl")
)
_SCHEMES = {b"x-forwarded-proto": b"https", b"x-forwarded-protocol": b"ssl", b"x-forwarded-ssl": b"on"}


class RefusedError(Exception):
    """The request is refused before an application sees it.

    Attributes:
        status: the HTTP status code of the answer.
    """

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


def check_head(head: bytes) -> str:
    """Check a complete request head, from its first byte to its empty line.

    Returns:
        its version of HTTP, "1.0" or "1.1".

    Raises:
        RefusedError: the head violates the grammar or a bound.
    """
    if len(head) > MAX_LINE:
        _check_sizes(head)
    found = HEAD.fullmatch(head)
    if found is None:
        raise RefusedError(400, "the request head is not valid HTTP/1.1")
    return "1.0" if found.lastindex else "1.1"


def check_beginning(head: bytes | bytearray, since: int) -> None:
    """Check a head that is still incomplete, as far as it has arrived.

    Args:
        head: the bytes so far.
        since: how many of them were checked before.

    Raises:
        RefusedError: no continuation could make this a valid head.
    """
    end = head.find(b"\n", 0, MAX_LINE + 2)
    if end < 0 and len(head) > MAX_LINE:
        raise RefusedError(414, f"the request line is longer than {MAX_LINE} bytes")
    if len(head) > MAX_HEAD:
        raise RefusedError(431, f"the request head is larger than {MAX_HEAD} bytes")
    if len(head) - head.rfind(b"\n") > MAX_FIELD + 2:
        raise RefusedError(431, f"a header field is longer than {MAX_FIELD} bytes")
    if (since <= end and _LINE.match(head) is None) or _NEVER_VALID.search(head, max(since - 1, 0)) is not None:
        raise RefusedError(400, "the request head is not valid HTTP/1.1")


def check_fields(fields: Fields, known: Mapping[bytes, bytes], version: str) -> None:
    """Check the fields that the parser has found.

    Args:
        fields: all of them, with names in lower case.
        known: the last value of each name.
        version: of HTTP, such as "1.1".

    Raises:
        RefusedError: there are too many, or fields that must not be repeated or combined like this.
    """
    if len(fields) > MAX_FIELDS:
        raise RefusedError(431, f"the request has more than {MAX_FIELDS} header fields")
    if len(known) != len(fields) and sum(name == b"host" for name, _ in fields) > 1:
        raise RefusedError(400, "there are two Host headers")
    if not _SPECIAL.isdisjoint(known):
        _check_special(fields, version)


def _check_special(fields: Fields, version: str) -> None:
    codings = [value.lower() for name, value in fields if name == b"transfer-encoding"]
    if codings and version == "1.0":
        raise RefusedError(400, "HTTP/1.0 has no Transfer-Encoding")
    if codings and codings != [b"chunked"]:
        raise RefusedError(501, "the only Transfer-Encoding that is read is one chunked")
    # Proxies set these three. A request in which they disagree has been tampered with.
    schemes = {value == _SCHEMES[name] for name, value in fields if name in _SCHEMES}
    if len(schemes) > 1:
        raise RefusedError(400, "the X-Forwarded headers contradict each other")


def _check_sizes(head: bytes) -> None:
    if len(head) > MAX_HEAD:
        raise RefusedError(431, f"the request head is larger than {MAX_HEAD} bytes")
    line, *fields = head.split(b"\r\n")
    if len(line) > MAX_LINE:
        raise RefusedError(414, f"the request line is longer than {MAX_LINE} bytes")
    if any(len(field) > MAX_FIELD for field in fields):
        raise RefusedError(431, f"a header field is longer than {MAX_FIELD} bytes")
