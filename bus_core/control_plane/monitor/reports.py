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
"""In the order in which they are heard. A condition has one reason, and the first reporter that has one gives it:
a driver speaks of events that are held up, which is more than a subscriber that fails."""

KEEP_UNKNOWN = 60.0
"""Seconds for which a report on a subscription is kept that the watch has not reported yet, or that is gone."""


class Reports:
    """Thread-safe: a driver's threads, delivery's and the event loop report, monitor threads read.

    Args:
        cache: says which subscriptions exist.
        clock: seconds, monotonic.
    """

    def __init__(self, cache: Cache, clock: Callable[[], float] = time.monotonic) -> None:
        self._cache = cache
        self._clock = clock
        self._lock = threading.Lock()  # guards the two below
        self._reports: dict[SubscriptionReference, _Report] = {}
        self._sweep_at = clock() + KEEP_UNKNOWN

    def put(self, subscription: SubscriptionReference, reporter: Reporter, reason: str, message: str) -> None:
        """Keep what a reporter says; an empty reason takes back what it said before."""
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
        """The reason and message that count; None if all is well."""
        with self._lock:
            report = self._reports.get(subscription)
        if report is None:
            return None
        return next((report.reasons[reporter] for reporter in REPORTERS if reporter in report.reasons), None)

    def forget(self, subscription: SubscriptionReference) -> None:
        """The subscription has ended."""
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
