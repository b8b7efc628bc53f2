"""Monitor: its public face. It watches one bus, its channels and subscriptions, and calls hooks."""

from __future__ import annotations

import threading
from collections.abc import Collection

from bus_core.control_plane.cluster import ClusterClient
from bus_core.control_plane.cluster.access import connect
from bus_core.control_plane.leadership import ALWAYS, Leadership
from bus_core.control_plane.monitor.cache import Cache
from bus_core.control_plane.monitor.channel_view import ABSENT, UNSYNCED, Availability, ChannelView
from bus_core.control_plane.monitor.context import ReconcileContext
from bus_core.control_plane.monitor.handler import FunctionHooks, Hooks, MonitorEventHandlerFuncs
from bus_core.control_plane.monitor.reports import Reporter
from bus_core.control_plane.monitor.running import Running
from bus_core.control_plane.sources import Source
from bus_core.control_plane.sources.kubernetes import KubernetesSource
from bus_core.model.errors import BusError
from bus_core.model.references import BusReference, ChannelReference, SubscriptionReference
from bus_core.model.resources import DISPATCHER, PROVISIONER, AnyBus, Channel, Role, Subscription, SubscriptionSpec
from bus_core.telemetry import get_logger

log = get_logger(__name__)


class NotSyncedError(BusError):
    """The resources could not be read before the monitor was asked to stop."""


class Monitor:
    """Watches the resources of one bus, and calls handler functions or a driver's hooks for their changes.

    Args:
        component: the name of this program in Events.
        master_url: the API server's address; unused if `source` is given.
        kubeconfig: the path of a kubeconfig file; unused if `source` is given. Without both, the monitor uses the
            credentials of the pod.
        handler: the functions or hooks to call.
        source: the source of the resources if not a cluster, such as `ManifestSource(folder, bus)`.
        leadership: decides which of several processes provisions and writes conditions.
        roles: the roles of this process; by default those whose handler functions are set, or both for hooks.
        deletion_grace: seconds from refusing a deleted channel's events to unprovisioning the channel.

    Every method is thread-safe. Call `run` once.

    Raises:
        ConfigurationError: no cluster is given outside a pod, or the kubeconfig cannot be used.
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
        self._origin: Source | ClusterClient = connect(master_url, kubeconfig) if source is None else source
        self._leadership = leadership
        self._grace = deletion_grace
        self._settled = threading.Event()
        self._running: Running | None = None  # made by `run`; set once

    # Queries.

    def lookup(self, channel: ChannelReference) -> ChannelView:
        """Whether a channel accepts events now. One dict read: cheap enough for every event."""
        running = self._running
        return UNSYNCED if running is None else running.lookup(channel)

    def channel(self, name: str, namespace: str) -> Channel | None:
        """The provisioned channel with this name, or None."""
        view = self._view(name, namespace)
        return view.channel if view.availability is Availability.READY else None

    def subscription(self, name: str, namespace: str) -> Subscription | None:
        """The subscription with this name if its `subscribe` has succeeded, or None."""
        views = [] if self._running is None else list(self._running.reconciler.views.values())
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
        """The Bus or ClusterBus, or None before it has been read."""
        return None if self._running is None else self._running.cache.bus

    def problems(self) -> list[str]:
        """Why this monitor is not ready to serve; empty when it is."""
        running = self._running
        return [Availability.UNSYNCED.value] if running is None else running.problems()

    def wait_for_cache_sync(self, stop: threading.Event) -> None:
        """Block until every resource has been read and reconciled once.

        Raises:
            NotSyncedError: `stop` was set first.
        """
        while not self._settled.wait(0.05):
            if stop.is_set():
                raise NotSyncedError("the monitor was stopped before it had read the resources")

    # Requests.

    def requeue_subscription(self, subscription: Subscription) -> None:
        """Call `subscribe` again for this subscription, although nothing has changed."""
        if self._running is not None:
            self._running.subscribe_again(subscription.reference)

    def report(
        self,
        subscription: SubscriptionReference,
        reason: str = "",
        message: str = "",
        *,
        reporter: Reporter = "driver",
    ) -> None:
        """Report a problem: see `bus_core.driver.hookspecs.Report`. A reporter ends only its own reports."""
        if self._running is None:
            return
        (log.warning if reason else log.info)(
            "a subscription has a problem" if reason else "a subscription has recovered",
            subscription=str(subscription),
            reason=reason,
            detail=message,
        )
        self._running.report(subscription, reason, message, reporter)

    # The run.

    def run(self, bus_namespace: str, bus_name: str, threadiness: int, stop: threading.Event) -> None:
        """Watch and reconcile until `stop` is set. The stop calls no hooks. Blocks.

        Args:
            bus_namespace: empty for a ClusterBus.
            bus_name: the bus to serve.
            threadiness: how many channels are reconciled at once.
            stop: ends the monitor, after the running hooks have ended.
        """
        reference = BusReference(bus_name, bus_namespace)
        context = ReconcileContext(
            self._hooks, Cache(reference), self._source_of(reference), self._leadership, self._roles, self._grace
        )
        self._running = Running(context, self._settled)
        self._running.run(threadiness, stop)

    def _source_of(self, bus: BusReference) -> Source:
        if not isinstance(self._origin, ClusterClient):
            return self._origin
        provisions = PROVISIONER in self._roles
        return KubernetesSource(self._origin, bus, component=self.component, provisions=provisions)

    def _view(self, name: str, namespace: str) -> ChannelView:
        views = {} if self._running is None else self._running.reconciler.views
        return views.get(ChannelReference(name, namespace), ABSENT)
