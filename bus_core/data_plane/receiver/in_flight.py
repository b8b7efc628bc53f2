"""Receiver: the events that are being received now, and how they end at a shutdown."""

from __future__ import annotations

import asyncio
from typing import Any

_LAST_ANSWERS = 0.5
"""Seconds for the answers to events that are cancelled."""


class EventsInFlight:
    """The tasks that receive an event. Use it on one event loop at a time."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()
        self._giving_up = False

    def __len__(self) -> int:
        return len(self._tasks)

    def begin(self) -> asyncio.Task[Any]:
        """The current task receives an event from now on. Hand it to `end` later."""
        task = asyncio.current_task()
        assert task is not None  # a responder runs in one
        self._tasks.add(task)
        return task

    def end(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)

    def reopen(self) -> None:
        """Receive again after `drain`."""
        self._giving_up = False

    async def drain(self, timeout: float) -> int:
        """Wait until every event is answered; how many were cancelled, because `timeout` seconds had passed."""
        await self._wait(timeout)
        cancelled = len(self._tasks)
        if cancelled:
            self._giving_up = True
            for task in self._tasks:
                task.cancel()
            await self._wait(_LAST_ANSWERS)
        return cancelled

    def must_end(self) -> bool:
        """Whether the server cancelled the current task. A task that `drain` cancels continues, with its answer."""
        task = asyncio.current_task()
        if task is None or not task.cancelling():
            return False
        if self._giving_up:
            task.uncancel()
        return not self._giving_up

    async def _wait(self, timeout: float) -> None:
        now = asyncio.get_running_loop().time
        deadline = now() + timeout
        while self._tasks and now() < deadline:
            await asyncio.sleep(0.005)
