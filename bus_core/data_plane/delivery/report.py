"""Delivery: counts to telemetry, log lines of dropped events, and the reason `SubscriberFailing` with its text."""

from __future__ import annotations

import threading
from collections.abc import Callable

from bus_core import telemetry
from bus_core.data_plane.delivery.lane import Lane, LaneStats
from bus_core.data_plane.delivery.registry import LaneRegistry
from bus_core.model.references import SubscriptionReference

SubscriberReport = Callable[[SubscriptionReference, str, str], None]
"""Called with a subscription, a reason and a message when events are given up, and with an empty reason when an event
has arrived again."""

log = telemetry.get_logger(__name__)


class Reporter:
    """Passes counts to telemetry. Thread-safe: methods take the locks they need; call them without the engine's lock.

    Args:
        lock: the engine's lock.
        lanes: all lanes.
        report: called about failing subscribers; or None.
    """

    def __init__(self, lock: threading.Lock, lanes: LaneRegistry, report: SubscriberReport | None) -> None:
        self._lock = lock
        self._lanes = lanes
        self._report = report
        self._closed: set[Lane] = set()  # out of the registry, with counts left; guarded by the engine's lock
        # One flush at a time, and no gauge is set after it was removed. Taken before the engine's lock.
        self._flush_lock = threading.Lock()

    def add_closed(self, lane: Lane) -> None:
        """Count this lane in the next flush, although it is in the registry no more. Engine's lock held."""
        self._closed.add(lane)

    def flush(self) -> None:
        """Pass the counts to telemetry, and log drops: one line per lane and reason. Called twice a second."""
        with self._flush_lock:
            with self._lock:
                unused = self._lanes.remove_unused_sinks()
                lanes = list(self._lanes)
                closed, self._closed = self._closed, set()
            for lane in unused:
                telemetry.lane_depth.forget(lane.name)
            for lane in lanes:
                if lane.stats.has_counts:
                    self._flush_counts(lane)
                if lane.events != lane.stats.depth_shown:  # of thousands of lanes, most have not changed
                    lane.stats.depth_shown = lane.events
                    telemetry.lane_depth.set(lane.stats.depth_shown, lane.name)
            for lane in closed:
                self._flush_counts(lane)
        if self._report is not None:
            for lane in lanes:
                if bool(lane.stats.failure) != lane.stats.failure_reported:
                    self._report_failure(lane, self._report)

    def forget(self, lane: Lane) -> None:
        """Remove the series of a lane that has left the registry."""
        with self._flush_lock:
            telemetry.lane_depth.forget(lane.name)

    def _flush_counts(self, lane: Lane) -> None:
        fresh = LaneStats()
        with self._lock:
            stats = lane.stats
            fresh.failure, fresh.failure_reported = stats.failure, stats.failure_reported
            fresh.depth_shown = stats.depth_shown
            lane.stats = fresh
        for counter, number in (
            (telemetry.delivered, stats.delivered),
            (telemetry.retried, stats.retried),
            (telemetry.dead_lettered, stats.dead_lettered),
            (telemetry.lane_refusals, stats.refusals),
        ):
            if number:
                counter.inc(lane.name, by=number)
        for reason, number in stats.dropped.items():
            telemetry.dropped.inc(lane.name, reason, by=number)
            detail = stats.details.get(reason, "")
            log.warning("events dropped", subscription=lane.name, reason=reason, count=number, detail=detail)

    def _report_failure(self, lane: Lane, report: SubscriberReport) -> None:
        if lane.target is None or lane.closed:
            return
        with self._lock:
            failure = lane.stats.failure
            lane.stats.failure_reported = bool(failure)
        try:
            report(lane.target.subscription, "SubscriberFailing" if failure else "", failure)
        except Exception:  # the others' reports go on
            log.exception("a subscriber's failure could not be reported", subscription=lane.name)
