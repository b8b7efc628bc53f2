"""Receiver: calls the function that takes the events, on the event loop or on a pool of threads."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor

from bus_core.model.message import Message
from bus_core.model.references import ChannelReference

ReceiverFunc = Callable[[ChannelReference, Message], Awaitable[None] | None]


class EventFunction:
    """A `ReceiverFunc` and the threads it needs. Use it on one event loop at a time.

    Args:
        function: a coroutine function is awaited on the event loop; any other function is called on a thread.
        threads: how many calls run at once on threads.
    """

    def __init__(self, function: ReceiverFunc, threads: int) -> None:
        self._function = function
        self._is_async = inspect.iscoroutinefunction(function)
        self._threads = threads
        self._pool: ThreadPoolExecutor | None = None

    def call(self, channel: ChannelReference, message: Message) -> Awaitable[None] | None:
        """Call the function. The result, unless it is None, is to be awaited."""
        return self._function(channel, message) if self._is_async else self._call_on_thread(channel, message)

    async def _call_on_thread(self, channel: ChannelReference, message: Message) -> None:
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix="receive")
        accepted = await asyncio.get_running_loop().run_in_executor(self._pool, self._function, channel, message)
        if inspect.isawaitable(accepted):  # a plain function may wrap a coroutine function
            await accepted

    def close(self) -> None:
        """Let the threads end. The next call starts new ones."""
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)
            self._pool = None
