"""Driver: the blocked reporter of one subscription. It says in the condition which partitions are blocked. No Kafka."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol

from bus_core import Gauge, SubscriptionReference

REASON = "Blocked"


class Report(Protocol):
    """`bus_core.DriverContext.report`, as far as it is used here."""

    def __call__(self, subscription: SubscriptionReference, reason: str = "", message: str = "") -> None: ...


class BlockedReporter:
    """Combines the blocked partitions of this member with those of other members. Not thread-safe.

    The consumer's thread calls it; `withdraw` is for the time after that thread has ended.

    Args:
        source: where the partitions are, for people: a topic.
        gauge: the number of this member's blocked partitions, by subscription.
    """

    def __init__(self, subscription: SubscriptionReference, source: str, report: Report, gauge: Gauge) -> None:
        self._subscription = subscription
        self._source = source
        self._report = report
        self._gauge = gauge
        self._elsewhere: dict[int, int] = {}
        self._reported: str | None = None

    def update(self, blocked: Mapping[int, int]) -> None:
        """Set this member's blocked partitions, each with the offset it is held up at. Reports a change."""
        self._gauge.set(len(blocked), str(self._subscription))
        text = sentence(self._source, self._elsewhere | dict(blocked))
        if text == self._reported:
            return
        self._reported = text
        if text is None:
            self._report(self._subscription)
        else:
            self._report(self._subscription, REASON, text)

    def set_elsewhere(self, blocked: Mapping[int, int]) -> None:
        """Set the blocked partitions of other members. The next `update` reports them."""
        self._elsewhere = dict(blocked)

    def assigned(self, partitions: Iterable[int]) -> None:
        """These partitions are this member's now: what another member said of them no longer counts."""
        for number in partitions:
            self._elsewhere.pop(number, None)

    def close(self) -> None:
        """Drop the gauge's series."""
        self._gauge.forget(str(self._subscription))

    def withdraw(self) -> None:
        """Take the report back. Another member that still sees a blocked partition reports it again."""
        if self._reported is not None:
            self._reported = None
            self._report(self._subscription)


def sentence(source: str, blocked: Mapping[int, int]) -> str | None:
    """The text of the condition; None if nothing is blocked."""
    if not blocked:
        return None
    places = ", ".join(f"partition {number} at offset {offset}" for number, offset in sorted(blocked.items()))
    return f"{source}: {places}: an event that cannot be delivered holds up the events after it"
