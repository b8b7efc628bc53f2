"""Driver: administrative requests, awaited until the brokers answer, the time is up, or the host stops."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from concurrent.futures import Future
from typing import Any, TypeVar

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from bus_core import TemporaryError

T = TypeVar("T")

SLICE = 0.1
"""Seconds between two looks at `stopping`. A request that is quicker succeeds even while the host stops."""

MARGIN = 5.0
"""Seconds that the client may take longer than the request's own time-out."""


class AdminRequests:
    """Waits for requests on behalf of hooks, so that a slow broker cannot hold up a stop. Thread-safe.

    Args:
        timeout: seconds that a request may take.
        stopping: once it is set, waiting ends with a TemporaryError. The host repeats such a hook after a restart.
    """

    def __init__(self, client: AdminClient, timeout: float, stopping: threading.Event) -> None:
        self.client = client
        self.timeout = timeout
        self._stopping = stopping

    def results(self, futures: Mapping[Any, Future[T]]) -> list[T]:
        """Wait for all of them.

        Raises:
            KafkaException: the brokers rejected a request, or did not answer it.
            TemporaryError: the host stops, or the client does not end the request in time.
        """
        return [self._wait(future) for future in futures.values()]

    def metadata(self, topic: str | None = None) -> Any:
        """The cluster's metadata, of all topics or of one. Raises the same errors as `results`.

        The client has no asynchronous form of this request, so a thread makes it. A thread whose request nobody waits
        for any more ends with the request.
        """
        answer: Future[Any] = Future()
        threading.Thread(target=self._list_topics, args=(topic, answer), name="kafka-metadata", daemon=True).start()
        return self._wait(answer)

    def _list_topics(self, topic: str | None, answer: Future[Any]) -> None:
        try:
            found = (
                self.client.list_topics(timeout=self.timeout)
                if topic is None
                else self.client.list_topics(topic, timeout=self.timeout)
            )
        except Exception as error:
            answer.set_exception(error)
        else:
            answer.set_result(found)

    def _wait(self, future: Future[T]) -> T:
        deadline = time.monotonic() + self.timeout + MARGIN
        while True:
            try:
                return future.result(SLICE)
            except TimeoutError:
                if self._stopping.is_set():
                    raise TemporaryError("the host stops before the brokers answered") from None
                if time.monotonic() > deadline:
                    raise TemporaryError(f"the brokers gave no answer within {self.timeout:g} s") from None


def error_code(error: KafkaException) -> int:
    """The code of a failed request."""
    code: int = error.args[0].code()
    return code
