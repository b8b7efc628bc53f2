"""Monitor: watches one bus with its channels and subscriptions, and keeps the hooks told of what is wanted."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Collection
from functools import partial

from bus_core.control_plane.cluster.access import connect
from bus_core.control_plane.leadership import ALWAYS, Leadership
from bus_core.control_plane.monitor.applied_state import Failure, Fingerprint, Reporter, attempt
from bus_core.control_plane.monitor.cache import Cache
from bus_core.control_plane.monitor.channel_view import ABSENT, UNSYNCED, Availability, ChannelView
from bus_core.control_plane.monitor.handler import FunctionHooks, Hooks, MonitorEventHandlerFuncs
from bus_core.control_plane.monitor.reconcile import ERR_RESOURCE_SYNC, Reconciler
from bus_core.control_plane.monitor.workqueue import WorkQueue
from bus_core.control_plane.sources import Change, Source
from bus_core.control_plane.sources.kubernetes import KubernetesSource
from bus_core.model.conditions import Condition
from bus_core.model.errors import BusError, ForbiddenError, TemporaryError
from bus_core.model.references import BusReference, ChannelReference, SubscriptionReference
from bus_core.model.resources import DISPATCHER, PROVISIONER, AnyBus, Channel, Role, Subscription, SubscriptionSpec
from bus_core.telemetry import get_logger, reconciles

log = get_logger(__name__)

_LOOK = 2.0  # seconds between two looks at what keeps the source or the leadership from their work

BusKey = BusReference
Key = ChannelReference | BusKey


class NotSyncedError(BusError):
    """The resources could not be read before the monitor was asked to stop."""


class Monitor:
    """Watches the resources of one bus and calls handler functions, or a driver's hooks, for what they require.

    Args:
        component: names this program in Events.
        master_url: the API server's address; unused while `source` is given.
        kubeconfig: the path of a kubeconfig file; unused while `source` is given. With neither of the two the
            credentials of the pod count.
        handler: what to call.
        source: where the resources are if not in a cluster, such as `ManifestSource(folder, bus)`.
        leadership: who may provision and write conditions, where several processes serve one bus.
        roles: which roles to play; by default those whose handler functions are set, or both for a driver's hooks.
        deletion_grace: seconds between refusing a deleted channel's events and unprovisioning it.

    Every method is thread-safe. `run` is called once.

    Raises:
        ConfigurationError: no cluster is named outside of one, or the kubeconfig cannot be used.
    """

    def __init__(
        self,
        component: str,
        master_url: str = "",
        kubeconfig: str = "",
        handler: MonitorEventHandlerFuncs | Hooks | None = None,
        *,
        source: Source | None = None,
        leadership: Leadership = ALWAYS,
        roles: Collection[Role] | None = None,
        deletion_grace: float = 5.0,
    ) -> None:
        if isinstance(handler, MonitorEventHandlerFuncs) or handler is None:
            functions = handler or MonitorEventHandlerFuncs()
            self._hooks: Hooks = FunctionHooks(functions)
            self._roles: Collection[Role] = functions.roles if roles is None else roles
        else:
            self._hooks = handler
            self._roles = (PROVISIONER, DISPATCHER) if roles is None else roles
        self.component = component
        self._client = connect(master_url, kubeconfig) if source is None else None
        self._given = source
        self._leadership = leadership
        self._grace = deletion_grace
        self._queue: WorkQueue[Key] = WorkQueue()
        self._cache: Cache | None = None
        self._reconciler: Reconciler | None = None
        self._bus_told: Fingerprint | None = None
        self._bus_failure: Failure | None = None
        self._refused: dict[Key, str] = {}
        self._first_pass: set[Key] | None = None
        self._settled = threading.Event()
        self._said: tuple[str, ...] = ()

    # What others ask; reads only.

    def lookup(self, channel: ChannelReference) -> ChannelView:
        """What to do with an event for this channel now. One dict read: cheap enough for every event."""
        settled = self._settled.is_set()  # asked first: what is settled after it may be about this channel
        view = self._reconciler.views.get(channel) if self._reconciler is not None else UNSYNCED
        if view is not None and view.availability is not Availability.ABSENT:
            return view  # no channel waits for the first pass of another
        known = self._cache.channel(channel) if self._cache is not None else None
        if known is not None and not known.deleted and self._cache is not None and known.bus == self._cache.reference:
            return ChannelView(Availability.UNPROVISIONED, known)  # its turn has not come
        return ABSENT if settled or view is not None else UNSYNCED

    def channel(self, name: str, namespace: str) -> Channel | None:
        """The provisioned channel of this name, or None."""
        view = self._view(name, namespace)
        return view.channel if view.availability is Availability.READY else None

    def subscription(self, name: str, namespace: str) -> Subscription | None:
        """The subscription of this name if `subscribe` has succeeded for it, or None."""
        views = list(self._reconciler.views.values()) if self._reconciler else []
        for view in views:
            found = view.subscriptions.get(name)
            if found is not None and found.namespace == namespace:
                return found
        return None

    def subscriptions(self, channel_name: str, namespace: str) -> list[SubscriptionSpec] | None:
        """The specs of a channel's subscriptions, or None if the channel is not provisioned."""
        view = self._view(channel_name, namespace)
        if view.availability is not Availability.READY:
            return None
        return [subscription.spec for subscription in view.subscriptions.values()]

    @property
    def bus(self) -> AnyBus | None:
        """The Bus or ClusterBus itself, once it has been read."""
        return self._cache.bus if self._cache else None

    def problems(self) -> list[str]:
        """Why this monitor is not ready to serve; empty when it is."""
        failure = self._bus_failure
        refused = [f"the bus was not taken: {failure.message}"] if failure else []
        if not self._settled.is_set():
            return [Availability.UNSYNCED.value, *(self._source.problems() if self._cache else ()), *refused]
        assert self._cache is not None
        if self._cache.bus is None:
            return [f"the bus {self._cache.reference} does not exist"]
        return refused

    def wait_for_cache_sync(self, stop: threading.Event) -> None:
        """Block until every resource has been read and reconciled once.

        Raises:
            NotSyncedError: `stop` was set first.
        """
        while not self._settled.wait(0.05):
            if stop.is_set():
                raise NotSyncedError("the monitor was stopped before the resources had been read")

    def requeue_subscription(self, subscription: Subscription) -> None:
        """Call `subscribe` again for this subscription, although nothing has changed."""
        if self._reconciler is not None:
            self._reconciler.again(subscription.reference)
            self._queue.add(subscription.channel)

    def report(
        self,
        subscription: SubscriptionReference,
        reason: str = "",
        message: str = "",
        *,
        reporter: Reporter = "driver",
    ) -> None:
        """Say how a subscription is; see `bus_core.driver.hookspecs.Report`. Each reporter takes back only its own."""
        if self._reconciler is None:
            return
        (log.warning if reason else log.info)(
            "a subscription is reported" if reason else "a subscription is well again",
            subscription=str(subscription),
            reason=reason,
            detail=message,
        )
        channel = self._reconciler.report(subscription, reason, message, reporter)
        if channel is not None:
            self._queue.add(channel)

    # What runs.

    def run(self, bus_namespace: str, bus_name: str, threadiness: int, stop: threading.Event) -> None:
        """Watch and reconcile until `stop` is set; no hook is called because of the stop. Blocks.

        Args:
            bus_namespace: empty for a ClusterBus.
            bus_name: the bus to serve.
            threadiness: how many channels are reconciled at once.
            stop: ends the monitor; hooks that are running are waited for.
        """
        reference = BusReference(bus_name, bus_namespace)
        if self._given is not None:
            self._source: Source = self._given
        else:
            assert self._client is not None
            self._source = KubernetesSource(
                self._client, reference, component=self.component, provisions=PROVISIONER in self._roles
            )
        self._cache = Cache(reference)
        self._reconciler = Reconciler(
            self._hooks, self._cache, self._source, self._leadership, self._roles, deletion_grace=self._grace
        )
        watch = threading.Thread(target=self._source.run, args=(self._take_in, stop), name="source", daemon=True)
        workers = [threading.Thread(target=self._work, name=f"reconcile-{n}", daemon=True) for n in range(threadiness)]
        watch.start()
        while not self._source.synced.wait(0.05):
            if stop.is_set():
                break
            self._say_problems(unsynced=True)
        self._first_pass = self._keys(reference)
        for key in self._keys(reference):
            self._queue.add(key)
        if not stop.is_set():
            self._leadership.start(reference, self._roles, self._gained)
        for worker in workers:
            worker.start()
        while not stop.wait(_LOOK):
            self._say_problems()
        self._queue.close()
        for worker in workers:
            worker.join()
        # No hook starts from here on. What else has to end may take long, and nobody should wait for a leader.
        self._leadership.release()
        watch.join()

    def _take_in(self, change: Change) -> None:
        assert self._cache is not None
        touched = self._cache.apply(change)
        if touched is None:
            self._queue.add(self._cache.reference)
            return
        for channel in touched:
            self._queue.add(channel)

    def _gained(self, role: Role) -> None:
        log.info("leading", role=role)
        if self._cache is not None:
            for key in self._keys(self._cache.reference):
                self._queue.add(key)

    def _keys(self, bus: BusKey) -> set[Key]:
        keys: set[Key] = {bus}
        return keys if self._cache is None else keys | self._cache.references()

    def _work(self) -> None:
        while (key := self._queue.get()) is not None:
            try:
                self._reconcile(key)
            except ForbiddenError as error:
                self._refused[key] = str(error)
                delay = self._queue.add_failed(key)
                reconciles.inc("temporary")
                log.warning("a write is not allowed", key=str(key), delay=delay, detail=str(error))
            except TemporaryError as error:
                delay = self._queue.add_failed(key)
                reconciles.inc("temporary")
                log.info("a write was not taken and will be tried again", key=str(key), delay=delay, detail=str(error))
            except Exception:
                delay = self._queue.add_failed(key)
                reconciles.inc("error")
                log.exception("a reconcile failed and will be tried again", key=str(key), delay=delay)
            else:
                self._refused.pop(key, None)
            finally:
                if not self._queue.done(key):
                    self._passed(key)

    def _reconcile(self, key: Key) -> None:
        assert self._reconciler is not None
        if isinstance(key, BusReference):
            self._reconcile_bus()
            return
        if self._cache is not None and self._cache.bus is not None and self._bus_told is None:
            return  # sync_bus comes first; it will queue every channel
        result, again = self._reconciler.reconcile(key)
        reconciles.inc(result)
        self._queue.forget(key)
        if again is not None:
            self._queue.add_after(key, again)

    def _reconcile_bus(self) -> None:
        """Tell `sync_bus`. A failure is tried again with back-off, and the channels go on meanwhile: they may not need
        what has changed, and a Bus that nobody can take must not stop what works."""
        assert self._cache is not None
        bus = self._cache.bus
        if bus is None:
            log.warning("the bus does not exist (yet)", bus=str(self._cache.reference))
            return
        fingerprint: Fingerprint = (bus.uid, bus.spec)
        failure = self._bus_failure
        if self._bus_told != fingerprint or (failure is not None and time.monotonic() >= failure.until):
            what = f"sync_bus {self._cache.reference}"
            sync = partial(self._hooks.sync_bus, bus)
            self._bus_failure = attempt(sync, failure, fingerprint, what, time.monotonic, _midway)
            if self._bus_failure is not None and (failure is None or failure.message != self._bus_failure.message):
                self._source.record_event(bus, ERR_RESOURCE_SYNC, self._bus_failure.message, warning=True)
            self._bus_told = fingerprint
            for channel in self._cache.references():
                if self._first_pass is not None and not self._settled.is_set():
                    self._first_pass.add(channel)
                self._queue.add(channel)
        self._write_bus_conditions(bus)
        self._queue.forget(self._cache.reference)
        if self._bus_failure is not None and self._bus_failure.until != float("inf"):
            self._queue.add_after(self._cache.reference, max(self._bus_failure.until - time.monotonic(), 0.0))

    def _write_bus_conditions(self, bus: AnyBus) -> None:
        assert self._reconciler is not None
        mine: list[Condition] = []
        failure = self._bus_failure or self._trouble()
        kinds: tuple[tuple[Role, str], ...] = ((PROVISIONER, "Provisioning"), (DISPATCHER, "Dispatching"))
        for role, kind in kinds:
            if self._reconciler.leads(role):
                if failure is None:
                    mine.append(Condition(kind, "True", "Running"))
                else:
                    mine.append(Condition(kind, "False", failure.reason, failure.message))
        if not mine:
            return
        if self._reconciler.leads(PROVISIONER):
            mine += self._source.reach(bus)
        known = {condition.type: condition for condition in (*bus.conditions, *mine)}
        parts = [known.get(kind) for kind in ("Serviceable", "Provisioning", "Dispatching")]
        bad = next((part for part in parts if part is not None and part.status == "False"), None)
        if bad is not None:
            ready = Condition("Ready", "False", bad.reason, bad.message)
        elif all(parts):
            ready = Condition("Ready", "True", "Running")
        else:
            ready = Condition("Ready", "Unknown", "RoleMissing", "no process provisions or none dispatches")
        self._source.write_conditions(bus, [*mine, ready])

    def _problems(self) -> list[str]:
        return [*self._source.problems(), *self._leadership.problems(), *list(self._refused.values())[:1]]

    def _trouble(self) -> Failure | None:
        """What keeps this process from its work although the driver took the bus."""
        problems = self._problems()
        return Failure((), "temporary", "NotInStep", "; ".join(problems), float("inf")) if problems else None

    def _say_problems(self, *, unsynced: bool = False) -> None:
        """Have the Bus's conditions say what keeps this process from its work, when that has changed."""
        problems = tuple(self._problems())
        if problems == self._said or self._cache is None:
            return
        bus = self._cache.bus
        if not (unsynced or self._leadership.problems()):
            self._said = problems
            self._queue.add(self._cache.reference)
        elif bus is not None:
            self._said = problems
            # Nobody may lead before everything has been read, or without a Lease; what hinders that hinders all.
            text = "; ".join(problems)
            with contextlib.suppress(TemporaryError):
                self._source.write_conditions(bus, [Condition("Ready", "False", "NotInStep", text)])

    def _passed(self, key: Key) -> None:
        """The monitor counts as synced when everything that existed at first has been reconciled once, and what that
        changed as well: before that, nobody can say of a channel that it does not exist."""
        if self._settled.is_set() or self._first_pass is None:
            return
        self._first_pass.discard(key)
        if not self._first_pass:
            self._settled.set()

    def _view(self, name: str, namespace: str) -> ChannelView:
        views = self._reconciler.views if self._reconciler else {}
        return views.get(ChannelReference(name, namespace), ABSENT)


def _midway() -> float:
    return 0.5
