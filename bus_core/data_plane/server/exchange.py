"""Server: one request and its answer, between an ASGI application and its connection."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping, MutableMapping
from typing import Any, Protocol

from bus_core.data_plane.server.request import RequestReader
from bus_core.data_plane.server.response import (
    CONTINUE,
    LAST_CHUNK,
    AnswerHead,
    answer_head,
    begun_answer,
    chunk,
    connection_header,
    whole_answer,
)
from bus_core.data_plane.server.service import ASGIApp, Scope


class Line(Protocol):
    """The connection, as an exchange sees it."""

    @property
    def is_ending(self) -> bool:
        """The server takes no other request on it."""

    def body_taken(self) -> None:
        """The application has received the part of the body that had arrived."""

    def write(self, data: bytes) -> None:
        """Send bytes. Does nothing after the sender has gone."""

    async def writable(self) -> None:
        """Wait until the sender has read most of the bytes that were written."""

    def ended(self, exchange: Exchange, error: BaseException | None) -> None:
        """The application has returned, raised, or was cancelled."""


class Exchange:
    """One request, from its complete head to the end of its application.

    Attributes:
        is_answered: the last byte of the answer was written.
        has_begun: the first byte of the answer was written.
        is_last: the connection ends after the answer, which says so.
    """

    __slots__ = (
        "_gone",
        "_head",
        "_in_chunks",
        "_left",
        "_line",
        "_read",
        "_request",
        "_task",
        "_waiter",
        "has_begun",
        "is_answered",
        "is_last",
    )

    def __init__(self, line: Line, request: RequestReader) -> None:
        self._line = line
        self._request = request
        self._read = False  # the application has received the whole body
        self._gone = False
        self._waiter: asyncio.Future[None] | None = None
        self._head: AnswerHead | None = None
        self._in_chunks = False  # the answer is sent in chunks
        self._left = -1  # bytes of its body that are to come, by its Content-Length
        self._task: asyncio.Task[None] | None = None
        self.has_begun = False
        self.is_answered = False
        self.is_last = not request.keep_alive

    def start(self, app: ASGIApp, scope: Scope, loop: asyncio.AbstractEventLoop) -> None:
        """Run the application in a task of its own."""
        if sys.version_info >= (3, 12):  # the application begins at once: a round of the event loop less
            self._task = asyncio.Task(self._run(app, scope), loop=loop, name="request", eager_start=True)
        else:
            self._task = asyncio.Task(self._run(app, scope), loop=loop, name="request")

    def wake(self) -> None:
        """More of the body has arrived."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def leave(self, loop: asyncio.AbstractEventLoop, grace: float) -> None:
        """The sender has gone. The application receives `http.disconnect`; after `grace` seconds it is cancelled,
        because its connection no longer counts against the limit."""
        self._gone = True
        if self._task is not None:
            loop.call_later(grace, self._task.cancel)
        self.wake()

    async def _run(self, app: ASGIApp, scope: Scope) -> None:
        try:
            await app(scope, self._receive, self._send)
        except BaseException as error:  # a CancelledError as well
            self._line.ended(self, error)
        else:
            self._line.ended(self, None)

    async def _receive(self) -> Mapping[str, Any]:
        while not self._read and not self._gone:
            body = self._request.take_body()
            self._read = self._request.is_complete
            if body or self._read:
                if not self._read:
                    self._line.body_taken()
                return {"type": "http.request", "body": body, "more_body": not self._read}
            if self._request.expects_continue and not self.has_begun:
                self._request.expects_continue = False
                self._line.write(CONTINUE)
            await self._wait()
        while not self._gone:
            await self._wait()
        return {"type": "http.disconnect"}

    async def _wait(self) -> None:
        self._waiter = asyncio.get_running_loop().create_future()
        await self._waiter

    async def _send(self, message: MutableMapping[str, Any]) -> None:
        kind = message["type"]
        if kind == "http.response.start":
            if self._head is not None:
                raise RuntimeError("the application has begun two answers")
            self._head = answer_head(message["status"], message.get("headers", ()))
            return
        if kind != "http.response.body" or self._head is None or self.is_answered:
            raise RuntimeError("an answer is one http.response.start and then its http.response.body")
        body, more = message.get("body", b""), message.get("more_body", False)
        if self.has_begun or more:
            self._write_piece(self._head, body, more)
            await self._line.writable()
            return
        answer = whole_answer(self._head, body, self._ending(self._head), self._request.method == b"HEAD")
        self.has_begun = self.is_answered = True
        self._line.write(answer)

    def _ending(self, head: AnswerHead) -> bytes:
        """Decide whether the connection goes on after this answer. A body that has not arrived is not waited for."""
        request = self._request
        if self._line.is_ending or head.says_close or not request.is_complete:
            self.is_last = True
        is_1_0 = request.version == "1.0"
        return connection_header(head, is_last=self.is_last, is_1_0=is_1_0) if self.is_last or is_1_0 else b""

    def _write_piece(self, head: AnswerHead, body: bytes, more: bool) -> None:
        is_1_0, is_head = self._request.version == "1.0", self._request.method == b"HEAD"
        if not self.has_begun:
            has_end = head.length >= 0 or not head.has_body
            self._in_chunks = not has_end and not is_1_0 and not is_head
            self.is_last = self.is_last or (is_1_0 and not has_end)
            self._left = head.length
            self._line.write(begun_answer(head, self._ending(head), self._in_chunks))
            self.has_begun = True
        if is_head or not head.has_body:
            body = b""
        elif self._left >= 0:
            self._left -= len(body)
            if self._left < 0 or (self._left and not more):
                raise RuntimeError(f"the body of an answer is not as long as its Content-Length says ({head.length})")
        self._line.write((chunk(body) + (b"" if more else LAST_CHUNK)) if self._in_chunks else body)
        self.is_answered = not more
