"""Host, shutdown: how a worker stops. A sequence of stages that share one budget of time.

First /readyz turns 503, the receiver refuses events, idle connections close and the driver's `stopping` is set. Then:

    stage        at most           effect if it runs out of time
    receive      3.5 s             the remaining events are cancelled and answered 503: the bus did not accept them
    monitor      2 s               the hook keeps running; this process keeps leading until the driver closes, so that
                                   no other process calls a leader's hook at the same time
    drain        --drain-timeout   the remaining events are dropped, counted and logged
    leadership   0.5 s             leadership ends soon, with the process
    driver       2 s or more       closing the driver's exit stack is abandoned
    connections  0.5 s             they end with the process

The server kills a worker `--drain-timeout` plus `GRACE` seconds after the stop began. The budget is one second less,
because the server needs that second. A stage that ends early leaves its time to the driver. If a stage fails or runs
out of time, the worker logs that and begins the next stage.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from bus_core.data_plane.delivery import Delivery
from bus_core.data_plane.dispatch import MessageDispatcher
from bus_core.data_plane.receiver.receiver import MessageReceiver
from bus_core.data_plane.server import Connections
from bus_core.host.hooks import HostHooks
from bus_core.host.monitor_thread import MonitorThread
from bus_core.telemetry import get_logger

GRACE = 10.0
"""Seconds after the drain timeout at which the server kills a worker."""

SERVER = 1.0
"""Seconds of `GRACE` in which the server sends its last answers, after the shutdown."""

RECEIVE = 3.0  # plus half a second in which the receiver answers the events that it cancels
MONITOR = 2.0
DRAIN_END = 0.5  # seconds after the drain timeout to drop the remaining events
LEADERSHIP = 0.5
CONNECTIONS = 0.5

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Parts:
    """The parts that a shutdown stops.

    Attributes:
        receiver: refuses new events, and ends those that it is receiving.
        hooks: refuse the monitor's calls from the driver's close on.
        monitor: ends, and gives up leadership.
        driver_stopping: `DriverContext.stopping`.
        driver_exit: `DriverContext.exit_stack`.
        delivery: drains its lanes.
        dispatcher: closes its connections.
    """

    receiver: MessageReceiver
    hooks: HostHooks
    monitor: MonitorThread
    driver_stopping: threading.Event
    driver_exit: contextlib.ExitStack
    delivery: Delivery
    dispatcher: MessageDispatcher


class Shutdown:
    """The shutdown of one worker. `run` it once, on the worker's event loop.

    Args:
        parts: the parts to stop.
        drain_timeout: seconds that the lanes have to drain.
    """

    def __init__(self, parts: Parts, drain_timeout: float) -> None:
        self._parts = parts
        self._drain_timeout = drain_timeout
        self._deadline = float("inf")
        self._given_up: int | None = None
        self._left_behind: list[str] = []
        self.has_begun = False

    def remaining(self) -> float:
        """Seconds of the budget that are left."""
        return max(self._deadline - time.monotonic(), 0.0)

    async def run(self, connections: Connections) -> None:
        """Run all stages. Returns within `drain_timeout + GRACE - SERVER` seconds, even if a stage hangs."""
        began = time.monotonic()
        self._deadline = began + self._drain_timeout + GRACE - SERVER
        self.has_begun = True
        log.info(
            "stopping",
            receiving=self._parts.receiver.in_flight,
            undelivered=self._undelivered(),
            seconds_at_most=round(self.remaining(), 3),
        )
        try:
            await self._end_receiving(connections)
            await self._stage("monitor", self._parts.monitor.stop, MONITOR)
            await self._stage("drain", self._drain, self._drain_timeout + DRAIN_END)
        finally:
            if "monitor" in self._left_behind:
                await self._stage("leadership", self._parts.monitor.release_leadership, LEADERSHIP)
            self._parts.hooks.close()
            await self._stage("driver", self._parts.driver_exit.close, self.remaining() - CONNECTIONS)
            await self._stage("connections", self._parts.dispatcher.close, CONNECTIONS)
            log.info(
                "stopped",
                seconds=round(time.monotonic() - began, 3),
                given_up=self._undelivered() if self._given_up is None else self._given_up,
                left_behind=self._left_behind,
            )

    async def _end_receiving(self, connections: Connections) -> None:
        began = time.monotonic()
        try:
            self._parts.receiver.refuse("the bus is stopping")
            self._parts.driver_stopping.set()
            connections.close_idle()
            cancelled = await self._parts.receiver.drained(RECEIVE)
        except Exception:
            log.exception("a stage of the shutdown failed", stage="receive")
            return
        if cancelled:
            self._left_behind.append("receive")
            log.warning(
                "cancelled events that were not received in time, with 503", stage="receive", cancelled=cancelled
            )
        else:
            _log_end("receive", began)

    def _drain(self) -> None:
        self._given_up = self._parts.delivery.drain(self._drain_timeout)

    def _undelivered(self) -> int:
        return sum(self._parts.delivery.depths().values())

    async def _stage(self, name: str, work: Callable[[], None], seconds: float) -> None:
        """Do the blocking work of one stage on its own thread, and log the result. Never raises."""
        began = time.monotonic()
        thread = _StageThread(work, asyncio.get_running_loop())
        driver = self._parts.hooks.driver_name
        try:
            thread.start()
            await asyncio.wait_for(thread.ended.wait(), seconds)
        except TimeoutError:
            self._left_behind.append(name)
            log.warning(
                "a stage of the shutdown did not end in time and is abandoned",
                stage=name,
                seconds=round(seconds, 3),
                driver=driver,
            )
            return
        except RuntimeError:  # no thread can be started
            log.exception("a stage of the shutdown could not begin", stage=name, driver=driver)
            return
        if thread.error is not None:
            log.error("a stage of the shutdown failed", stage=name, driver=driver, exc_info=thread.error)
        else:
            _log_end(name, began)


class _StageThread(threading.Thread):
    """Does the work of one stage. A daemon thread, so that work that hangs does not keep the process alive."""

    def __init__(self, work: Callable[[], None], loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(name="shutdown", daemon=True)
        self._work = work
        self._loop = loop
        self.ended = asyncio.Event()
        self.error: Exception | None = None

    def run(self) -> None:
        try:
            self._work()
        except Exception as error:
            self.error = error
        with contextlib.suppress(RuntimeError):  # the loop is closed, so the shutdown has ended
            self._loop.call_soon_threadsafe(self.ended.set)


def _log_end(stage: str, began: float) -> None:
    log.debug("a stage of the shutdown ended", stage=stage, seconds=round(time.monotonic() - began, 3))
