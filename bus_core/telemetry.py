"""Telemetry: counters, gauges and loggers. Nothing is measured until the host calls `enable`.

Only this file imports prometheus-client, and only after it has set PROMETHEUS_MULTIPROC_DIR. prometheus-client decides
at import whether processes share values (measured: the variable has no effect if it is set later).
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
    """A named metric. It does nothing until telemetry is enabled.

    Args:
        name: a Prometheus name with the prefix `bus_`.
        help_text: one line of description.
        labels: the names of its labels. The methods take the values in this order.
    """

    def __init__(self, name: str, help_text: str, labels: Sequence[str] = ()) -> None:
        self.name = name
        self.help = help_text
        self.labels = tuple(labels)
        _metrics.append(self)
        if _enabled:  # a driver that is imported late creates its metrics now
            self.connect()

    def connect(self) -> None:
        raise NotImplementedError


class Counter(_Metric):
    """A growing count, summed over all workers. Thread-safe. A driver creates its counters at module level."""

    _real: prometheus_client.Counter | None = None

    def connect(self) -> None:
        from prometheus_client import Counter as PrometheusCounter

        self._real = PrometheusCounter(self.name, self.help, self.labels)

    def inc(self, *values: str, by: float = 1) -> None:
        """Add `by` under the given label values."""
        if self._real is not None:
            (self._real.labels(*values) if values else self._real).inc(by)


class Gauge(_Metric):
    """A level, summed over the living workers. Thread-safe. A driver creates its gauges at module level."""

    _real: prometheus_client.Gauge | None = None

    def connect(self) -> None:
        from prometheus_client import Gauge as PrometheusGauge

        # `livesum` drops the value of a dead worker; a plain gauge keeps it (measured).
        self._real = PrometheusGauge(self.name, self.help, self.labels, multiprocess_mode="livesum")

    def set(self, value: float, *labels: str) -> None:
        """Set the level under the given label values."""
        if self._real is not None:
            (self._real.labels(*labels) if labels else self._real).set(value)

    def forget(self, *labels: str) -> None:
        """Remove a series. If workers share values, a series cannot be removed and becomes zero."""
        if self._real is not None:
            self._real.labels(*labels).set(0)
            if not os.environ.get(_MULTIPROCESS):
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
    """Start measuring. Call it once, before the workers are forked; a second call does nothing.

    Args:
        directory: the folder in which workers share their values; None for one process.
    """
    global _enabled  # noqa: PLW0603  # one registry per process, as in prometheus-client
    if _enabled:
        return
    if directory is not None:
        directory.mkdir(parents=True, exist_ok=True)
        os.environ[_MULTIPROCESS] = str(directory)
    for metric in _metrics:
        metric.connect()
    _enabled = True


def worker_died(pid: int) -> None:
    """Drop the values of a dead worker from the gauges. Its counts stay.

    Args:
        pid: the worker's process id.
    """
    if os.environ.get(_MULTIPROCESS):
        from prometheus_client import multiprocess

        multiprocess.mark_process_dead(pid)  # type: ignore[no-untyped-call]


def exposition() -> tuple[bytes, str]:
    """The metrics of all workers in the text format of Prometheus, and their content type."""
    from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, CollectorRegistry, generate_latest, multiprocess

    registry: CollectorRegistry = REGISTRY
    if os.environ.get(_MULTIPROCESS):
        registry = CollectorRegistry()
        multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return generate_latest(registry), CONTENT_TYPE_LATEST


def get_logger(name: str) -> BoundLogger:
    """A structlog logger on the standard library's `logging`.

    `bus run` configures its format. A program that uses bus_core as a library configures `logging` as usual.
    """
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
