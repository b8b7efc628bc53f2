"""Below the seam: a source in memory that keeps a cluster's promises, hooks that remember, leadership on request."""

from __future__ import annotations

import datetime as dt
import threading
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace

from bus_core.control_plane.sources import Change, OnChange
from bus_core.model.conditions import Condition, merge_conditions
from bus_core.model.errors import TemporaryError
from bus_core.model.parameters import Parameter, ResolvedParameters
from bus_core.model.references import BusReference
from bus_core.model.resources import (
    AnyBus,
    Bus,
    BusSpec,
    Channel,
    ChannelSpec,
    Metadata,
    Resource,
    ResourceKey,
    Role,
    Subscription,
    SubscriptionSpec,
)


class FakeSource:
    """Holds resources; a deleted one stays while it has finalizers. Reports at once, on the writer's thread."""

    def __init__(self) -> None:
        self.synced = threading.Event()
        self.objects: dict[ResourceKey, Resource] = {}
        self.writes: list[str] = []
        self.events: list[tuple[str, str, str]] = []
        self.rejected: list[str] = []
        self.reached: Sequence[Condition] | None = None
        self.on_change: OnChange = lambda change: None
        self._uids = 0
        self._lock = threading.RLock()

    def run(self, on_change: OnChange, stop: threading.Event) -> None:
        self.on_change = on_change
        for resource in list(self.objects.values()):
            on_change(Change(resource.key, resource))
        self.synced.set()
        stop.wait()

    def put(self, resource: Resource) -> Resource:
        """Create or replace, as a user does: status and finalizers stay, the uid of a new one is new."""
        with self._lock:
            old = self.objects.get(resource.key)
            if old is None:
                self._uids += 1
                meta = replace(resource.metadata, uid=f"u{self._uids}")
                fresh = replace(resource, metadata=meta)
            else:
                meta = replace(old.metadata, generation=old.metadata.generation + 1)
                fresh = replace(
                    resource,
                    metadata=meta,
                    conditions=old.conditions,
                    provisioned_parameters=old.provisioned_parameters,
                )
            self._store(fresh)
            return fresh

    def delete(self, key: ResourceKey) -> None:
        with self._lock:
            resource = self.objects.get(key)
            if resource is not None:
                self._store(replace(resource, metadata=replace(resource.metadata, deleted=True)))

    def add_finalizer(self, resource: Resource, finalizer: str) -> None:
        def change(now: Resource) -> Resource:
            have = now.metadata.finalizers
            return now if finalizer in have else _with(now, finalizers=(*have, finalizer))

        if finalizer not in resource.metadata.finalizers and not self._change(resource, change):
            raise TemporaryError("it has changed")

    def remove_finalizer(self, resource: Resource, finalizer: str) -> None:
        self._change(
            resource,
            lambda now: _with(now, finalizers=tuple(name for name in now.metadata.finalizers if name != finalizer)),
        )

    def write_conditions(
        self,
        resource: Resource,
        conditions: Sequence[Condition],
        *,
        provisioned_parameters: ResolvedParameters | None = None,
    ) -> None:
        def change(now: Resource) -> Resource:
            merged = merge_conditions(now.conditions, conditions, dt.datetime.now(dt.UTC))
            stored = now.provisioned_parameters if provisioned_parameters is None else provisioned_parameters
            generation = resource.metadata.generation
            return replace(now, conditions=merged, observed_generation=generation, provisioned_parameters=stored)

        self._change(resource, change)

    def record_event(self, resource: Resource, reason: str, message: str, *, warning: bool = False) -> None:
        self.events.append((str(resource.key), reason, message))

    def ensure_reachable(self, resource: Resource) -> Sequence[Condition]:
        if self.reached is not None:
            return self.reached
        kinds = ("Serviceable", "Routeable") if isinstance(resource, Channel) else ("Serviceable",)
        return [Condition(kind, "True", "Local") for kind in kinds]

    def remove_reachability(self, channel: Channel) -> None:
        pass

    def problems(self) -> list[str]:
        return []

    def rejections(self) -> list[str]:
        return self.rejected

    def _change(self, resource: Resource, change: Callable[[Resource], Resource]) -> bool:
        with self._lock:
            now = self.objects.get(resource.key)
            if now is None or now.uid != resource.uid:
                return False
            after = change(now)
            if after != now:
                self.writes.append(str(resource.key))
                self._store(after)
            return True

    def _store(self, resource: Resource) -> None:
        if resource.deleted and not resource.metadata.finalizers:
            self.objects.pop(resource.key, None)
            self.on_change(Change(resource.key, None))
        else:
            self.objects[resource.key] = resource
            self.on_change(Change(resource.key, resource))


def _with(resource: Resource, *, finalizers: tuple[str, ...]) -> Resource:
    return replace(resource, metadata=replace(resource.metadata, finalizers=finalizers))


class FakeHooks:
    """Remembers calls, and fails as it is told: `fail[hook, name]` is raised while it is there."""

    def __init__(self, declared: Sequence[Parameter] = ()) -> None:
        self.declared = declared
        self.calls: list[tuple[str, str]] = []
        self.fail: dict[tuple[str, str], Exception] = {}
        self.provisioned: dict[str, ResolvedParameters] = {}
        self.subscribed: dict[str, tuple[str, str, ResolvedParameters]] = {}
        self._lock = threading.Lock()

    def _call(self, hook: str, name: str) -> None:
        with self._lock:
            self.calls.append((hook, name))
        error = self.fail.get((hook, name))
        if error is not None:
            raise error

    def sync_bus(self, bus: AnyBus) -> None:
        self._call("sync_bus", bus.name)

    def provision(self, channel: Channel, parameters: ResolvedParameters) -> None:
        self._call("provision", channel.name)
        self.provisioned[channel.name] = parameters

    def unprovision(self, channel: Channel, parameters: ResolvedParameters) -> None:
        self._call("unprovision", channel.name)
        self.provisioned.pop(channel.name, None)

    def subscribe(
        self,
        channel: Channel,
        subscription: Subscription,
        parameters: ResolvedParameters,
        channel_parameters: ResolvedParameters,
    ) -> None:
        self._call("subscribe", subscription.name)
        self.subscribed[subscription.name] = (channel.uid, subscription.spec.subscriber, parameters)

    def unsubscribe(self, channel: Channel, subscription: Subscription) -> None:
        self._call("unsubscribe", subscription.name)
        self.subscribed.pop(subscription.name, None)

    def count(self, hook: str, name: str) -> int:
        return self.calls.count((hook, name))


class FakeLeadership:
    """Leads the roles that it is told to."""

    def __init__(self, *roles: Role) -> None:
        self.roles: set[Role] = set(roles)
        self.on_gain: Callable[[Role], None] = lambda role: None
        self.released = False

    def start(self, bus: BusReference, roles: Collection[Role], on_gain: Callable[[Role], None]) -> None:
        self.on_gain = on_gain

    def held(self, role: Role) -> bool:
        return role in self.roles

    def problems(self) -> list[str]:
        return []

    def release(self) -> None:
        self.released = True

    def gain(self, role: Role) -> None:
        self.roles.add(role)
        self.on_gain(role)


BUS = BusReference("demo", "default")


def bus(*parameters: Parameter) -> Bus:
    return Bus(Metadata("demo"), spec=BusSpec(parameters=parameters))


def channel(name: str = "orders", *, on: str = "demo", **arguments: str) -> Channel:
    return Channel(Metadata(name), spec=ChannelSpec(bus=on, arguments=arguments))


def subscription(
    name: str = "one", to: str = "orders", subscriber: str = "http://a/", **arguments: str
) -> Subscription:
    return Subscription(Metadata(name), spec=SubscriptionSpec(to, subscriber, arguments=arguments))
