"""Senders that post numbered events over kept connections and note what each was answered."""

from __future__ import annotations

import http.client
import itertools
import threading
import time
from collections import Counter
from types import TracebackType


class Load:
    """Posts events with bodies `CHANNEL-NUMBER` until it is left.

    Attributes:
        sent: when each body was sent, in monotonic seconds.
        accepted: the bodies that were answered 202.
        refused: the bodies that were answered 503.
        statuses: how often each status came.
        without_retry_after: how many 503 did not say when to come back.
        broken: how many requests got no answer at all.
    """

    def __init__(self, address: str, *channels: str, senders: int = 2, limit: int = 100_000, pause: float = 0) -> None:
        self.sent: dict[bytes, float] = {}
        self.accepted: set[bytes] = set()
        self.refused: set[bytes] = set()
        self.statuses: Counter[int] = Counter()
        self.without_retry_after = 0
        self.broken = 0
        self._address = address
        self._channels = itertools.cycle(channels)
        self._numbers = iter(range(limit))
        self._pause = pause
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._send, daemon=True) for _ in range(senders)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stop.set()
        self.join()

    def join(self) -> None:
        """Until the senders have ended."""
        for thread in self._threads:
            thread.join(30)

    def _send(self) -> None:
        host, _, port = self._address.rpartition(":")
        connection = http.client.HTTPConnection(host, int(port), timeout=20)
        while not self._stop.is_set():
            with self._lock:
                number = next(self._numbers, None)
                channel = next(self._channels)
            if number is None:
                break
            body = f"{channel}-{number}".encode()
            self.sent[body] = time.monotonic()
            try:
                connection.request("POST", "/", body, {"Host": f"{channel}.default"})
                answer = connection.getresponse()
                answer.read()
            except (OSError, http.client.HTTPException):
                connection.close()
                with self._lock:
                    self.broken += 1
                self._stop.wait(0.02)
                continue
            with self._lock:
                self._note(body, answer)
            if self._pause:
                self._stop.wait(self._pause)
        connection.close()

    def _note(self, body: bytes, answer: http.client.HTTPResponse) -> None:
        self.statuses[answer.status] += 1
        if answer.status == 202:
            self.accepted.add(body)
        elif answer.status == 503:
            self.refused.add(body)
            self.without_retry_after += int(answer.headers.get("retry-after", "0")) < 1
