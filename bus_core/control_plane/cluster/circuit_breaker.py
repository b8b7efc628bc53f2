"""Cluster: the circuit breaker. After a failed connection, one caller at a time tries the API server again.

All calls of a process to one API server share a breaker: reflectors, the Lease, writes, Events. So an API server that
refuses connections gets one connection per back-off step, not one per caller.
"""

from __future__ import annotations

import math
import random
import threading
import time
from collections.abc import Callable
from typing import Final

from bus_core.telemetry import get_logger

BACKOFF: Final = (1, 1, 1, 1, 1, 1, 1, 2, 3, 5, 8, 13, 21)
"""Seconds between failing connections; the last value repeats. Fourteen tries in the first minute. The first are one
second apart, so that a leader reaches a server that was away for a few seconds before its Lease expires."""

PROBE: Final = 3.0
"""Seconds after which a try counts as connected. Connecting takes less, or fails."""

PROBE_POLL: Final = 0.2
"""Seconds until a caller asks again while another caller tries to connect."""

REMINDER: Final = 60.0
"""Seconds between two log lines about an API server that stays unreachable."""

CHANGE: Final = 15.0
"""The same if the reason has changed. Two reasons may alternate."""

log = get_logger(__name__)


class UnreachableError(Exception):
    """A connection to the API server failed, or was closed without an answer, now or a moment ago.

    Args:
        detail: the reason, for people.
        retry_after: seconds until the next useful try.
    """

    def __init__(self, detail: str, retry_after: float) -> None:
        self.retry_after = retry_after
        super().__init__(detail)


class CircuitBreaker:
    """Closed while connections succeed, open after a failed one. Thread-safe; no method blocks.

    Args:
        server: the API server's address, for the log.
        clock: seconds, monotonic.
        jitter: in [0, 1).
    """

    def __init__(
        self,
        server: str,
        *,
        clock: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._server = server
        self._clock = clock
        self._jitter = jitter
        self._lock = threading.Lock()  # guards all below
        self._failures = 0
        self._detail = ""
        self._open_until = 0.0
        self._probe_until = 0.0
        self._logged: tuple[float, str] | None = None  # the last line of this outage

    def admit(self) -> None:
        """Ask before each request.

        Raises:
            UnreachableError: the breaker is open, or another caller tries to connect now.
        """
        with self._lock:
            if not self._failures:
                return
            now = self._clock()
            if now < self._open_until:
                raise UnreachableError(self._detail, self._open_until - now)
            if now < self._probe_until:
                raise UnreachableError(self._detail, PROBE_POLL)
            self._probe_until = now + PROBE

    def connected(self) -> None:
        """Note a successful connection, whatever the result of the request."""
        with self._lock:
            was_open, self._failures, self._logged = self._failures > 0, 0, None
        if was_open:
            log.info("the API server can be reached again", server=self._server)

    def failed(self, detail: str) -> UnreachableError:
        """Note a failed connection. Returns the error to raise. Logs the first failure, then one line per minute."""
        with self._lock:
            now = self._clock()
            if now >= self._open_until:  # else a parallel request has opened the breaker
                delay = BACKOFF[min(self._failures, len(BACKOFF) - 1)] * (1 + 0.1 * self._jitter())
                self._failures += 1
                self._open_until = now + delay
            self._probe_until = 0.0
            at, said = self._logged or (-math.inf, "")
            says = now - at >= (REMINDER if detail == said else CHANGE)
            if says:
                self._logged = (now, detail)
            self._detail = detail
            retry_after = self._open_until - now
        if says:
            log.warning("the API server cannot be reached", server=self._server, detail=detail)
        return UnreachableError(detail, retry_after)
