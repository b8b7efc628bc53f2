"""Counters, gauges and loggers. Silent in library use: nothing is measured until the host calls `enable`.

The only importer of prometheus-client, which must not be imported before PROMETHEUS_MULTIPROC_DIR is set: it decides at
its import whether values are shared between processes (measured: set later, the variable has no effect).
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

import structlog
from structlog.stdlib import BoundLogger

if TYPE_CHECKING:
    import prometheus_client

_MULTIPROCESS = "PROMETHEUS_MULTIPROC_DIR"


_metrics: list[_Metric] = []
_enabled = False


class _Metric:
    """A named metric that does nothing until telemetry is enabled.

    Args:
        name: in Prometheus' form, with the prefix `bus_`.
        help_text: one line for people.
        labels: the names of its labels; the methods take their values in this order.
    """

    def __init__(self, name: str, help_text: str, labels: Sequence[str] = ()) -> None:
        self.name = name
        self.help = help_text
        self.labels = tuple(labels)
        _metrics.append(self)
        if _enabled:  # of a driver that is loaded late
            self.connect()

    def connect(self) -> None:
        raise NotImplementedError


class Counter(_Metric):
    """Counts upwards, over all workers. Thread-safe. A driver makes its own once, at module level."""

    _real: prometheus_client.Counter | None = None

    def connect(self) -> None:
        from prometheus_client import Counter as PrometheusCounter

        self._real = PrometheusCounter(self.name, self.help, self.labels)

    def inc(self, *values: str, by: float = 1) -> None:
        """Add `by` under the given label values."""
        if self._real is not None:
            (self._real.labels(*values) if values else self._real).inc(by)


class Gauge(_Metric):
    """A level; with several workers the sum over those alive. Thread-safe. A driver makes its own at module level."""

    _real: prometheus_client.Gauge | None = None

    def connect(self) -> None:
        from prometheus_client import Gauge as PrometheusGauge

        # `livesum` forgets a dead worker's share; a plain gauge would keep it for ever (measured).
        self._real = PrometheusGauge(self.name, self.help, self.labels, multiprocess_mode="livesum")

    def set(self, value: float, *labels: str) -> None:
        if self._real is not None:
            (self._real.labels(*labels) if labels else self._real).set(value)

    def forget(self, *labels: str) -> None:
        """Drop the series of something that is gone."""
        if self._real is not None:
            self._real.labels(*labels).set(0)
            if not os.environ.get(_MULTIPROCESS):  # where a series cannot be removed, and zero has to do
                self._real.remove(*labels)


accepted = Counter("bus_events_accepted", "Events answered 202", ["channel"])
refused = Counter("bus_events_refused", "Events not accepted, by reason", ["reason"])
delivered = Counter("bus_deliveries", "Deliveries that a subscriber took", ["subscription"])
retried = Counter("bus_delivery_retries", "Deliveries tried again", ["subscription"])
dead_lettered = Counter("bus_deliveries_dead_lettered", "Deliveries that a dead-letter sink took", ["subscription"])
dropped = Counter("bus_deliveries_dropped", "Deliveries given up, by reason", ["subscription", "reason"])
lane_depth = Gauge("bus_lane_depth", "Events that wait for or are in delivery", ["subscription"])
lane_refusals = Counter("bus_lane_refusals", "Publishers refused because this lane was full", ["subscription"])
reconciles = Counter("bus_reconciles", "Reconciled channels, by result", ["result"])


def enable(directory: Path | None = None) -> None:
    """Start measuring. Call once per process, before the workers are forked.

    Args:
        directory: where the workers share their values; None for a lone process.
    """
    global _enabled  # noqa: PLW0603  # one process, one registry: prometheus-client keeps it so
    if _enabled:
        return
    if directory is not None:
        directory.mkdir(parents=True, exist_ok=True)
        os.environ[_MULTIPROCESS] = str(directory)
    for metric in _metrics:
        metric.connect()
    _enabled = True


def worker_died(pid: int) -> None:
    """Forget a dead worker's share of the gauges; its counts stay."""
    if os.environ.get(_MULTIPROCESS):
        from prometheus_client import multiprocess

        multiprocess.mark_process_dead(pid)  # type: ignore[no-untyped-call]


def exposition() -> tuple[bytes, str]:
    """All metrics of all workers in Prometheus text form, and the content type to serve them with."""
    from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, CollectorRegistry, generate_latest, multiprocess

    registry: CollectorRegistry = REGISTRY
    if os.environ.get(_MULTIPROCESS):
        registry = CollectorRegistry()
        multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return generate_latest(registry), CONTENT_TYPE_LATEST


def get_logger(name: str) -> BoundLogger:
    """A structlog logger on the standard library's `logging`: `bus run` configures how it looks, a program that uses
    bus_core as a library configures `logging` as for any other package."""
    return cast(
        BoundLogger,
        structlog.wrap_logger(
            logging.getLogger(name),
            processors=[
                structlog.stdlib.filter_by_level,
                structlog.stdlib.PositionalArgumentsFormatter(),
                structlog.stdlib.render_to_log_kwargs,
            ],
            wrapper_class=BoundLogger,
            cache_logger_on_first_use=True,
        ),
    )
