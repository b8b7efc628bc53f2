"""Monitor: a monitor that runs. Its cache, workqueue and reconcilers, its threads, and its problems."""

from __future__ import annotations

import threading

from bus_core.control_plane.monitor.bus_reconciler import BusReconciler
from bus_core.control_plane.monitor.channel_view import ABSENT, UNSYNCED, Availability, ChannelView
from bus_core.control_plane.monitor.context import ReconcileContext
from bus_core.control_plane.monitor.reconcile import Reconciler
from bus_core.control_plane.monitor.reports import Reporter
from bus_core.control_plane.monitor.workqueue import WorkQueue
from bus_core.control_plane.sources import Change
from bus_core.model.errors import ForbiddenError, TemporaryError
from bus_core.model.references import BusReference, ChannelReference, SubscriptionReference
from bus_core.model.resources import Role
from bus_core.telemetry import get_logger, reconciles

log = get_logger(__name__)

PROBLEM_POLL = 2.0
"""Seconds between two checks for problems of the source and the leadership."""

Key = ChannelReference | BusReference


class Running:
    """Created by `Monitor.run`, which runs it once. Every method except `run` is thread-safe.

    Args:
        settled: set once every resource has been read and reconciled.
    """

    def __init__(self, context: ReconcileContext, settled: threading.Event) -> None:
        self.cache = context.cache
        self.source = context.source
        self.reconciler = Reconciler(context)
        self.settled = settled
        self._context = context
        self._bus_reconciler = BusReconciler(context)
        self._queue: WorkQueue[Key] = WorkQueue()
        self._first_pass: set[Key] | None = None
        self._write_failures: dict[Key, TemporaryError] = {}
        self._said: list[str] = []

    def run(self, threadiness: int, stop: threading.Event) -> None:
        """Watch and reconcile until `stop` is set. Blocks."""
        watch = threading.Thread(target=self.source.run, args=(self._on_change, stop), name="source", daemon=True)
        workers = [threading.Thread(target=self._work, name="reconcile", daemon=True) for _ in range(threadiness)]
        watch.start()
        while not self.source.synced.wait(0.05):
            if stop.is_set():
                break
            self._say_problems(unsynced=True)
        self._first_pass = self._keys()
        self._add_all()
        if not stop.is_set():
            self._context.leadership.start(self.cache.reference, self._context.roles, self._on_gain)
        for worker in workers:
            worker.start()
        while not stop.wait(PROBLEM_POLL):
            self._say_problems(unsynced=False)
        self._queue.close()
        for worker in workers:
            worker.join()
        # No hook starts from here on. The rest may take long, so another process should lead now.
        self._context.leadership.release()
        watch.join()

    def lookup(self, channel: ChannelReference) -> ChannelView:
        """Whether a channel accepts events now."""
        settled = self.settled.is_set()  # read before the view: this channel may settle in between
        view = self.reconciler.views.get(channel)
        if view is not None and view.availability is not Availability.ABSENT:
            return view  # a ready channel does not wait for the first reconcile of others
        known = self.cache.channel(channel)
        if known is not None and not known.deleted and known.bus == self.cache.reference:
            return ChannelView(Availability.UNPROVISIONED, known)  # not reconciled yet
        return ABSENT if settled or view is not None else UNSYNCED

    def problems(self) -> list[str]:
        """Why this process is not ready to serve; empty when it is."""
        failure = self._bus_reconciler.failure
        rejected = [f"the driver rejected the bus: {failure.message}"] if failure else []
        rejected += self.source.rejections()
        if not self.settled.is_set():
            return [Availability.UNSYNCED.value, *self.source.problems(), *rejected]
        if self.cache.bus is None:
            return [f"the bus {self.cache.reference} does not exist"]
        return rejected

    def subscribe_again(self, subscription: SubscriptionReference) -> None:
        """Call `subscribe` although nothing has changed."""
        channel = self.reconciler.again(subscription)
        if channel is not None:
            self._queue.add(channel)

    def report(self, subscription: SubscriptionReference, reason: str, message: str, reporter: Reporter) -> None:
        """Store a report for the conditions of a subscription. Does not block."""
        channel = self.reconciler.report(subscription, reason, message, reporter)
        if channel is not None:
            self._queue.add(channel)

    # Adding keys to the queue.

    def _on_change(self, change: Change) -> None:
        touched = self.cache.apply(change)
        if touched is None:
            self._queue.add(self.cache.reference)
            return
        for channel in touched:
            self._queue.add(channel)

    def _on_gain(self, role: Role) -> None:
        log.info("leading", role=role)
        self.reconciler.gained(role)
        self._add_all()

    def _keys(self) -> set[Key]:
        return {self.cache.reference, *self.cache.references()}

    def _add_all(self) -> None:
        for key in self._keys():
            self._queue.add(key)

    # Working on the queue.

    def _work(self) -> None:
        while (key := self._queue.get()) is not None:
            try:
                self._reconcile(key)
            except TemporaryError as error:
                reconciles.inc("temporary")
                self._write_failed(key, error)
            except Exception:
                delay = self._queue.add_failed(key)
                reconciles.inc("error")
                log.exception("a reconcile failed and will be retried", key=str(key), delay=delay)
            else:
                self._write_failures.pop(key, None)
            finally:
                if not self._queue.done(key):
                    self._passed(key)

    def _write_failed(self, key: Key, error: TemporaryError) -> None:
        """Retry with back-off. Logged when the reason changes, not for each try."""
        before = self._write_failures.get(key)
        self._write_failures[key] = error
        delay = self._queue.add_failed(key)
        if before is not None and str(before) == str(error):
            return
        if isinstance(error, ForbiddenError):
            log.warning("a write is not allowed", key=str(key), delay=delay, detail=str(error))
        else:
            log.info("a write failed and will be retried", key=str(key), delay=delay, detail=str(error))

    def _reconcile(self, key: Key) -> None:
        if isinstance(key, BusReference):
            self._reconcile_bus()
            return
        if self.cache.bus is not None and not self._bus_reconciler.is_applied:
            return  # sync_bus comes first, and then queues every channel
        result, again = self.reconciler.reconcile(key)
        reconciles.inc(result)
        self._queue.forget(key)
        if again is not None:
            self._queue.add_after(key, again)

    def _reconcile_bus(self) -> None:
        bus = self.cache.bus
        if bus is None:
            log.warning("the bus does not exist yet", bus=str(self.cache.reference))
            return
        if self._bus_reconciler.apply(bus):
            for channel in self.cache.references():
                if self._first_pass is not None and not self.settled.is_set():
                    self._first_pass.add(channel)
                self._queue.add(channel)
        self._bus_reconciler.write_conditions(bus, self._troubles())
        self._queue.forget(self.cache.reference)
        again = self._bus_reconciler.retry_after()
        if again is not None:
            self._queue.add_after(self.cache.reference, again)

    def _passed(self, key: Key) -> None:
        """Note that a key was reconciled. The monitor is synced when all keys that existed at the start, and the keys
        that their reconciles changed, have been reconciled once. Before that, no channel counts as absent."""
        if self.settled.is_set() or self._first_pass is None:
            return
        self._first_pass.discard(key)
        if not self._first_pass:
            self.settled.set()

    # Problems, in the conditions of the Bus.

    def _troubles(self) -> list[str]:
        """The problems of this process other than a rejected Bus."""
        forbidden = [str(error) for error in list(self._write_failures.values()) if isinstance(error, ForbiddenError)]
        return [*self.source.problems(), *self._context.leadership.problems(), *forbidden[:1]]

    def _say_problems(self, *, unsynced: bool) -> None:
        """Write changed problems of this process into the conditions of the Bus."""
        troubles = self._troubles()
        if troubles == self._said:
            return
        bus = self.cache.bus
        if not (unsynced or self._context.leadership.problems()):
            self._said = troubles
            self._queue.add(self.cache.reference)
        elif bus is not None:
            self._said = troubles
            # There is no leader before all resources have been read, or without a Lease. So write it as a non-leader.
            self._bus_reconciler.write_not_in_step(bus, troubles)
