"""Source: KubernetesSource, on reflectors and guarded writes."""

from __future__ import annotations

import datetime as dt
import threading
import time
from collections.abc import Sequence
from typing import Any

from bus_core.control_plane.cluster import (
    BUSES,
    CHANNELS,
    CLUSTER_BUSES,
    SERVICES,
    SUBSCRIPTIONS,
    Api,
    ApiError,
    ClusterClient,
)
from bus_core.control_plane.cluster.reflector import SILENCE, Reflector
from bus_core.control_plane.sources import Change, OnChange
from bus_core.control_plane.sources.kubernetes.events import EventRecorder
from bus_core.control_plane.sources.kubernetes.seen import SeenResources
from bus_core.control_plane.sources.kubernetes.services import LABEL_BUS, ServiceName, Services
from bus_core.model.conditions import Condition, merge_conditions
from bus_core.model.errors import ForbiddenError, TemporaryError
from bus_core.model.parameters import ResolvedParameters
from bus_core.model.references import BusReference
from bus_core.model.resources import Channel, Kind, Resource, ResourceKey, from_object, parameters_to_object
from bus_core.telemetry import get_logger

APIS: dict[Kind, Api] = {
    "Bus": BUSES,
    "ClusterBus": CLUSTER_BUSES,
    "Channel": CHANNELS,
    "Subscription": SUBSCRIPTIONS,
}

REJECTED = 60.0
"""Seconds of only 401 answers after which the credentials count as rejected. A shorter time may be a rotation."""

_LAST_WAIT = 0.5

log = get_logger(__name__)


class KubernetesSource:
    """A `Source` on a cluster's API server. See `bus_core.control_plane.sources.Source` for its methods.

    For a namespaced Bus, every list and watch is limited to its namespace.

    Args:
        client: calls the API server.
        bus: the bus whose resources are reported.
        component: the name of this program in Events.
        service: the Service of the pods that receive events; by default `BUS-bus` in the Bus's namespace.
        provisions: whether this process is a provisioner, and so watches and writes Services.
        silence: seconds without a byte after which a watch is restarted.
    """

    def __init__(
        self,
        client: ClusterClient,
        bus: BusReference,
        *,
        component: str = "bus-core",
        service: ServiceName | None = None,
        provisions: bool = True,
        silence: float = SILENCE,
    ) -> None:
        self.synced = threading.Event()
        self._client = client
        self._bus = bus
        self._events = EventRecorder(client, component)
        self._services = Services(client, bus, service or ServiceName(f"{bus.name}-bus", bus.namespace or "default"))
        self._seen = SeenResources()
        self._report_lock = threading.Lock()  # held while `on_change` runs: one change at a time
        self._on_change: OnChange | None = None
        self._stop = threading.Event()
        self._given_up = False
        kind: Kind = "Bus" if bus.namespace else "ClusterBus"
        just_it = {"fieldSelector": f"metadata.name={bus.name}"}
        watched: list[tuple[Kind, dict[str, str]]] = [(kind, just_it), ("Channel", {}), ("Subscription", {})]
        self._reflectors = [
            Reflector(
                client,
                str(APIS[kind]),
                APIS[kind].path(bus.namespace),
                _KindListener(self, kind).on_object,
                query=query,
                silence=silence,
            )
            for kind, query in watched
        ]
        if provisions:
            # One watch for the channels' Services and the bus's own, to spare a failing API server.
            ours = {"labelSelector": f"{LABEL_BUS}={bus.name}"}
            self._reflectors.append(
                Reflector(
                    client,
                    "services",
                    SERVICES.path(bus.namespace),
                    self._on_service,
                    query=ours,
                    silence=silence,
                )
            )

    def run(self, on_change: OnChange, stop: threading.Event) -> None:
        self._on_change, self._stop = on_change, stop
        self._events.start()
        threads = [
            threading.Thread(target=reflector.run, args=(stop.wait,), name="watch", daemon=True)
            for reflector in self._reflectors
        ]
        for thread in threads:
            thread.start()
        while not stop.wait(0.02 if not self.synced.is_set() else None):
            if all(reflector.synced.is_set() for reflector in self._reflectors):
                self.synced.set()
        for reflector in self._reflectors:
            reflector.stop()
        end = time.monotonic() + _LAST_WAIT
        for thread in threads:
            # A thread that hangs in a list ends by its own time limit. Its reports are ignored.
            thread.join(max(end - time.monotonic(), 0.0))
        with self._report_lock:
            self._on_change = None
        self._events.stop()

    def problems(self) -> list[str]:
        return [f"{reflector.what}: {reflector.problem}" for reflector in self._reflectors if reflector.problem]

    def rejections(self) -> list[str]:
        if self._client.rejected_for() < REJECTED:
            return []
        return [f"{self._client.server} rejects the credentials of this process (401): renew the token"]

    def add_finalizer(self, resource: Resource, finalizer: str) -> None:
        resource = self._seen.newest(resource)
        if finalizer not in resource.metadata.finalizers:
            self._patch(resource, {"finalizers": [*resource.metadata.finalizers, finalizer]})

    def remove_finalizer(self, resource: Resource, finalizer: str) -> None:
        resource = self._seen.newest(resource)
        if finalizer in resource.metadata.finalizers:
            kept = [name for name in resource.metadata.finalizers if name != finalizer]
            self._patch(resource, {"finalizers": kept}, gone_is_fine=True)

    def write_conditions(
        self,
        resource: Resource,
        conditions: Sequence[Condition],
        *,
        provisioned_parameters: ResolvedParameters | None = None,
    ) -> None:
        resource = self._seen.newest(resource)
        generation = resource.metadata.generation
        merged = merge_conditions(resource.conditions, conditions, dt.datetime.now(dt.UTC))
        known = provisioned_parameters in (None, resource.provisioned_parameters)
        if known and merged == resource.conditions and resource.observed_generation == generation:
            return
        status: dict[str, Any] = {
            "observedGeneration": generation,
            "conditions": [condition.to_object() for condition in merged],
        }
        if provisioned_parameters is not None:
            status["provisionedParameters"] = parameters_to_object(provisioned_parameters)
        self._patch(resource, {}, status=status, gone_is_fine=True)

    def record_event(self, resource: Resource, reason: str, message: str, *, warning: bool = False) -> None:
        say = log.warning if warning else log.info
        say(message, resource=str(resource.key), reason=reason)
        self._events.record(resource, reason, message, warning=warning)

    def ensure_reachable(self, resource: Resource) -> Sequence[Condition]:
        if isinstance(resource, Channel):
            return [self._services.serve(resource), self._services.route()]
        return [self._services.serviceable()]

    def remove_reachability(self, channel: Channel) -> None:
        self._services.remove(channel)

    # Writes. Each requires the resource version on which the decision was based.

    def _patch(
        self, resource: Resource, meta: dict[str, Any], *, status: Any = None, gone_is_fine: bool = False
    ) -> None:
        """Patch one version of a resource, or its status if one is given."""
        if self._given_up:
            raise TemporaryError(f"{resource.key}: the API server does not answer, and the monitor is stopping")
        at = resource.metadata
        path = APIS[resource.kind].path(at.namespace, at.name, "status" if status is not None else "")
        body: dict[str, Any] = {"metadata": {"uid": at.uid, "resourceVersion": at.resource_version, **meta}}
        if status is not None:
            body["status"] = status
        try:
            answer = self._client.merge(path, body)
        except ApiError as error:
            if error.status == 404 and gone_is_fine:
                return
            # A stop waits for at most one write without an answer.
            self._given_up = self._given_up or (error.status == 0 and self._stop.is_set())
            raise as_error(error, resource) from None
        self._seen.wrote(resource, from_object(answer))

    # What the reflectors report.

    def on_resource(self, kind: Kind, event: str, item: dict[str, Any]) -> None:
        """Report a resource that is new, changed, or deleted (`event` is `DELETED`). Called by the reflectors."""
        if event == "DELETED":
            meta = item["metadata"]
            key = ResourceKey(kind, meta.get("namespace") or "", meta["name"])
            self._seen.remove(key)
            self._report(Change(key, None))
            return
        resource = from_object({**item, "kind": kind})
        self._seen.put(resource)
        self._report(Change(resource.key, resource))

    def _on_service(self, event: str, item: dict[str, Any]) -> None:
        if self._services.is_front(item):
            self._on_front(event)
            return
        channel = self._services.take(event, item)
        if channel is not None:
            self._again(ResourceKey("Channel", channel.namespace, channel.name))

    def _on_front(self, event: str) -> None:
        if self._services.take_front(event):
            for key in self._seen.resource_keys():
                if key.kind != "Subscription":
                    self._again(key)

    def _again(self, key: ResourceKey) -> None:
        """Report an unchanged resource again, so that it is reconciled."""
        resource = self._seen.get(key)
        if resource is not None:
            self._report(Change(key, resource))

    def _report(self, change: Change) -> None:
        with self._report_lock:
            if self._on_change is not None:
                self._on_change(change)


class _KindListener:
    """Passes the objects of one reflector to the source. It adds the kind, which the items of a list lack."""

    def __init__(self, source: KubernetesSource, kind: Kind) -> None:
        self._source = source
        self._kind = kind

    def on_object(self, event: str, item: dict[str, Any]) -> None:
        self._source.on_resource(self._kind, event, item)


def as_error(error: ApiError, resource: Resource) -> TemporaryError:
    """The error that a reconcile gets for a refused write."""
    if error.status == 403:
        return ForbiddenError(str(error), retry_after=5.0)
    after = error.retry_after or (0.0 if error.status == 409 else 1.0)
    return TemporaryError(f"{resource.key}: {error}", retry_after=after)


def read_bus(client: ClusterClient, bus: BusReference) -> Resource | None:
    """Read the Bus or ClusterBus. Returns None if it does not exist.

    Raises:
        ApiError: the server refused, or did not answer.
    """
    kind: Kind = "Bus" if bus.namespace else "ClusterBus"
    try:
        found = client.get(APIS[kind].path(bus.namespace, bus.name))
    except ApiError as error:
        if error.status == 404 and error.reason == "NotFound":
            return None
        raise
    return from_object({**found, "kind": kind})
