"""Monitor: the reports of the driver and of delivery on subscriptions. One reason each, until it is taken back."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Literal

from bus_core.control_plane.monitor.cache import Cache
from bus_core.model.references import SubscriptionReference

Reporter = Literal["driver", "delivery"]

REPORTERS: tuple[Reporter, ...] = ("driver", "delivery")
"""By priority. A condition has one reason: that of the first reporter with a report. A driver comes first, because
blocked events are worse than a failing subscriber."""

KEEP_UNKNOWN = 60.0
"""Seconds for which a report is kept while its subscription is unknown: not watched yet, or deleted."""


class Reports:
    """Thread-safe: threads of the driver and of delivery and the event loop write; the monitor's threads read.

    Args:
        cache: knows which subscriptions exist.
        clock: seconds, monotonic.
    """

    def __init__(self, cache: Cache, clock: Callable[[], float] = time.monotonic) -> None:
        self._cache = cache
        self._clock = clock
        self._lock = threading.Lock()  # guards the two below
        self._reports: dict[SubscriptionReference, _Report] = {}
        self._sweep_at = clock() + KEEP_UNKNOWN

    def put(self, subscription: SubscriptionReference, reporter: Reporter, reason: str, message: str) -> None:
        """Store a report. An empty reason removes the reporter's earlier report."""
        with self._lock:
            now = self._clock()
            known = self._reports.get(subscription)
            reasons = {name: said for name, said in known.reasons.items() if name != reporter} if known else {}
            if reason:
                reasons[reporter] = (reason, message)
            if reasons:
                self._reports[subscription] = _Report(reasons, now)
            else:
                self._reports.pop(subscription, None)
            if now >= self._sweep_at:
                self._sweep_at = now + KEEP_UNKNOWN
                self._sweep(now - KEEP_UNKNOWN)

    def get(self, subscription: SubscriptionReference) -> tuple[str, str] | None:
        """Reason and message of the first reporter with a report, or None."""
        with self._lock:
            report = self._reports.get(subscription)
        if report is None:
            return None
        return next((report.reasons[reporter] for reporter in REPORTERS if reporter in report.reasons), None)

    def forget(self, subscription: SubscriptionReference) -> None:
        """Remove the reports on a subscription that has ended."""
        with self._lock:
            self._reports.pop(subscription, None)

    def __len__(self) -> int:
        with self._lock:
            return len(self._reports)

    def _sweep(self, before: float) -> None:
        for subscription, report in list(self._reports.items()):
            if report.at <= before and self._cache.channel_of(subscription) is None:
                del self._reports[subscription]


class _Report:
    __slots__ = ("at", "reasons")

    def __init__(self, reasons: dict[Reporter, tuple[str, str]], at: float) -> None:
        self.reasons = reasons
        self.at = at
