"""The quick way for a request that arrives whole: read in one go, run and answered without gunicorn's machinery.

Nearly every event comes like this: one head, its body by Content-Length, nothing behind it. What `read` does not take
as such goes gunicorn's way, all that is to be refused among it, so nothing is let through here that is not there.
"""

from __future__ import annotations

import asyncio
import functools
import re
import sys
from collections.abc import Mapping, MutableMapping
from typing import Any, Protocol

from gunicorn.asgi.protocol import (
    _CACHED_SERVER_HEADER,
    _get_cached_date_header,
    _get_cached_status_line,
    _scan_response_headers,
)

from bus_core.data_plane.server.service import ASGIApp

MOST_FIELDS = 50
LONGEST_HEAD = 4000
"""Below every limit that gunicorn has for a line, a field or their number."""

# RFC 9112, sections 3 and 5; RFC 9110, sections 5.1 and 5.5: no space before the colon, no folded line, no bare CR, LF.
# A path with something to decode goes gunicorn's way, and so does a name with an underscore, which it trusts from some
# senders only.
_HEAD = re.compile(
    rb"POST (/[!$&'()*+,./0-9:;=@A-Z_a-z~-]*) HTTP/1\.1\r\n"
    rb"((?:[!#$%&'*+.^`|~0-9A-Za-z-]+:[^\x00-\x08\x0a-\x1f\x7f]*\r\n)+)\r\n"
)

_ELSEWHERE = frozenset(
    (b"transfer-encoding", b"expect", b"upgrade", b"x-forwarded-proto", b"x-forwarded-protocol", b"x-forwarded-ssl")
)

_ASGI = {"version": "3.0", "spec_version": "2.4"}

Fields = list[tuple[bytes, bytes]]


def read(data: bytes) -> tuple[str, Fields, bytes, bool] | None:
    """Of a request that is whole and plain its path, its header fields, its body, and whether it is the last of its
    connection; None for anything else."""
    head = _HEAD.match(data)
    if head is None or head.end() > LONGEST_HEAD:
        return None
    fields: Fields = []
    for line in head[2].split(b"\r\n")[:-1]:
        name, _, value = line.partition(b":")
        fields.append((name.lower(), value.strip(b" \t")))
    known = dict(fields)
    length = known.get(b"content-length", b"")
    then = known.get(b"connection", b"keep-alive").lower()
    if (
        len(known) != len(fields)  # what comes twice, gunicorn may refuse
        or len(fields) > MOST_FIELDS
        or not _ELSEWHERE.isdisjoint(known)
        or then not in (b"keep-alive", b"close")
        or not (length.isdigit() and len(length) < 12 and int(length) == len(data) - head.end())
    ):
        return None
    return head[1].decode("ascii"), fields, data[head.end() :], then == b"close"


class Connection(Protocol):
    """What an exchange needs of its connection."""

    @property
    def is_ending(self) -> bool:
        """Whether no other request will be served."""

    def write(self, answer: bytes) -> None:
        """Send the answer; nothing happens if the sender has gone."""

    def ended(self, exchange: Exchange, error: BaseException | None) -> None:
        """The application has returned, raised, or been cancelled."""


class Exchange:
    """One such request and its answer, which is written in one piece when it is complete."""

    __slots__ = (
        "_asked",
        "_body",
        "_connection",
        "_gone",
        "_head",
        "_parts",
        "_task",
        "_waits",
        "is_answered",
        "is_last",
    )

    def __init__(self, connection: Connection, body: bytes, is_last: bool) -> None:
        self._connection = connection
        self._body = body
        self._asked = False
        self._gone = False
        self._waits: asyncio.Future[None] | None = None
        self._head: Mapping[str, Any] | None = None
        self._parts: list[bytes] = []
        self._task: asyncio.Task[None] | None = None
        self.is_answered = False
        self.is_last = is_last
        """The connection ends with it. Decided when it is answered, since the answer says so."""

    def start(self, app: ASGIApp, scope: MutableMapping[str, Any], loop: asyncio.AbstractEventLoop) -> None:
        if sys.version_info >= (3, 12):  # the application begins at once: a round of the event loop less
            self._task = asyncio.Task(self._run(app, scope), loop=loop, eager_start=True)
        else:
            self._task = loop.create_task(self._run(app, scope))

    def leave(self, loop: asyncio.AbstractEventLoop, grace: float) -> None:
        """The sender has gone: whoever asks for more of its request is told, and what still runs after `grace` seconds
        is cancelled. Its connection no longer counts, so it must not go on for ever."""
        self._gone = True
        if self._task is not None:
            loop.call_later(grace, self._task.cancel)
        if self._waits is not None and not self._waits.done():
            self._waits.set_result(None)

    async def _run(self, app: ASGIApp, scope: MutableMapping[str, Any]) -> None:
        error: BaseException | None = None
        try:
            await app(scope, self._receive, self._send)
        except (Exception, asyncio.CancelledError) as raised:
            error = raised
        self._connection.ended(self, error)

    async def _receive(self) -> dict[str, Any]:
        if not self._asked and not self._gone:
            self._asked = True
            return {"type": "http.request", "body": self._body, "more_body": False}
        if not self._gone:
            self._waits = asyncio.get_running_loop().create_future()
            await self._waits
        return {"type": "http.disconnect"}

    async def _send(self, message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            self._head = message
            return
        if self._head is None or self.is_answered:
            raise RuntimeError("an answer is one http.response.start and its http.response.body")
        self._parts.append(message.get("body", b""))
        if not message.get("more_body", False):
            answer = self._answer(self._head["status"], self._head["headers"])
            self.is_answered = True
            self._connection.write(answer)

    def _answer(self, status: int, headers: Fields) -> bytes:
        head, has_length, says_close = _answer_head(status, tuple(headers))
        # RFC 9110, section 8.6: no Content-Length with 204. Neither it nor 304 has a body.
        body = b"" if status in (204, 304) else b"".join(self._parts)
        lines = [head, _get_cached_date_header()]
        if not has_length and status not in (204, 304):
            lines.append(b"content-length: %d\r\n" % len(body))
        self.is_last = self.is_last or says_close or self._connection.is_ending
        if self.is_last and not says_close:
            lines.append(b"Connection: close\r\n")
        lines += (b"\r\n", body)
        return b"".join(lines)


@functools.lru_cache(maxsize=64)  # nearly all answers are one and the same 202
def _answer_head(status: int, headers: tuple[tuple[bytes, bytes], ...]) -> tuple[bytes, bool, bool]:
    """The head of an answer as far as it is always the same, whether it says how long the body is, and whether it says
    that the connection ends.

    Raises:
        RuntimeError: the application wants to send it in chunks. What would split the answer is gunicorn's to refuse.
    """
    has_length, _, in_chunks = _scan_response_headers(headers)
    if in_chunks:
        raise RuntimeError("an answer in one piece has no Transfer-Encoding")
    lines = [_get_cached_status_line((1, 1), status)]
    lines += [name + b": " + value + b"\r\n" for name, value in headers]
    lines.append(_CACHED_SERVER_HEADER)
    return b"".join(lines), has_length, (b"connection", b"close") in headers


def scope_of(path: str, fields: Fields, server: object, client: object) -> dict[str, Any]:
    """The ASGI connection scope, as gunicorn makes it."""
    return {
        "type": "http",
        "asgi": _ASGI,
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode("ascii"),
        "query_string": b"",
        "root_path": "",
        "headers": fields,
        "server": server,
        "client": client,
    }
