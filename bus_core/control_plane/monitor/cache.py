"""Monitor: the cache. It holds the newest version of every resource of one bus, by channel. Thread-safe."""

from __future__ import annotations

import threading

from bus_core.control_plane.sources import Change
from bus_core.model.references import BusReference, ChannelReference, SubscriptionReference
from bus_core.model.resources import AnyBus, Bus, Channel, ClusterBus, Resource, ResourceKey, Subscription


class Cache:
    """Stores each change, and returns the channels that it affects."""

    def __init__(self, bus: BusReference) -> None:
        self.reference = bus
        self._lock = threading.Lock()  # guards all below; no other code is called while it is held
        self._bus: AnyBus | None = None
        self._channels: dict[ChannelReference, Channel] = {}
        self._subscriptions: dict[ChannelReference, dict[str, Subscription]] = {}
        self._channel_of: dict[ResourceKey, ChannelReference] = {}

    @property
    def bus(self) -> AnyBus | None:
        return self._bus

    def apply(self, change: Change) -> set[ChannelReference] | None:
        """Store a change. Returns the affected channels, or None for a change of the bus, which affects all."""
        with self._lock:
            resource, key = change.resource, change.key
            if key.kind == "Channel":
                return self._apply_channel(key, resource)
            if key.kind == "Subscription":
                return self._apply_subscription(key, resource)
            if BusReference(key.name, key.namespace) != self.reference:
                return set()
            self._bus = resource if isinstance(resource, Bus | ClusterBus) else None
            return None

    def channel(self, reference: ChannelReference) -> Channel | None:
        return self._channels.get(reference)

    def channels(self) -> list[Channel]:
        with self._lock:
            return list(self._channels.values())

    def subscriptions(self, channel: ChannelReference) -> dict[str, Subscription]:
        with self._lock:
            return dict(self._subscriptions.get(channel, {}))

    def channel_of(self, subscription: SubscriptionReference) -> ChannelReference | None:
        """The channel that a subscription names; None if the subscription is unknown."""
        key = ResourceKey("Subscription", subscription.namespace, subscription.name)
        with self._lock:
            return self._channel_of.get(key)

    def references(self) -> set[ChannelReference]:
        """Every channel that exists, or that a subscription names."""
        with self._lock:
            return set(self._channels) | set(self._subscriptions)

    def _apply_channel(self, key: ResourceKey, resource: Resource | None) -> set[ChannelReference]:
        reference = ChannelReference(key.name, key.namespace)
        if isinstance(resource, Channel):
            self._channels[reference] = resource
        else:
            self._channels.pop(reference, None)
        return {reference}

    def _apply_subscription(self, key: ResourceKey, resource: Resource | None) -> set[ChannelReference]:
        touched: set[ChannelReference] = set()
        before = self._channel_of.pop(key, None)
        if before is not None:
            touched.add(before)
            mine = self._subscriptions[before]
            del mine[key.name]
            if not mine:
                del self._subscriptions[before]
        if isinstance(resource, Subscription):
            self._channel_of[key] = resource.channel
            self._subscriptions.setdefault(resource.channel, {})[key.name] = resource
            touched.add(resource.channel)
        return touched
