"""Host, monitor thread: runs the monitor on its own thread, from the start of a worker to its shutdown."""

from __future__ import annotations

import threading

from bus_core.control_plane.leadership import Leadership
from bus_core.control_plane.monitor import Monitor
from bus_core.model.references import BusReference
from bus_core.telemetry import get_logger

THREADINESS = 4
"""How many channels a worker reconciles at once."""

log = get_logger(__name__)


class MonitorThread:
    """Runs one monitor. Thread-safe.

    Args:
        monitor: the monitor; only this thread runs it.
        leadership: the monitor's leadership.
        bus: the bus to watch.
    """

    def __init__(self, monitor: Monitor, leadership: Leadership, bus: BusReference) -> None:
        self._monitor = monitor
        self._leadership = leadership
        self._bus = bus
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="monitor", daemon=True)

    def start(self) -> None:
        """Start watching; returns at once."""
        self._thread.start()

    def problems(self) -> list[str]:
        """Why the monitor is not ready to serve; empty when it is."""
        return self._monitor.problems() if self._thread.is_alive() else ["the monitor has ended"]

    def stop(self) -> None:
        """Start no more hooks, wait for the running ones, and give up leadership. Blocks without limit."""
        self._stop.set()
        self._thread.join()

    def release_leadership(self) -> None:
        """Give up leadership although a hook may still run. May block for two seconds."""
        self._leadership.release()

    def _run(self) -> None:
        try:
            self._monitor.run(self._bus.namespace, self._bus.name, THREADINESS, self._stop)
        except Exception:
            log.exception("the monitor failed", bus=str(self._bus))
            self._leadership.release()  # without a monitor this process must not lead
