"""Delivery: all lanes of one worker, by subscription, by channel and by dead-letter sink."""

from __future__ import annotations

from collections.abc import Iterator

from bus_core.data_plane.delivery.lane import Lane, LaneLimits, Target
from bus_core.model.destination import masked
from bus_core.model.references import ChannelReference, SubscriptionReference


class LaneRegistry:
    """Finds and makes lanes. Guarded by the engine's lock, except that `by_channel` may be read without it.

    Args:
        limits: the bounds of each lane, also of sinks.

    Attributes:
        by_channel: the lanes of each channel. Its values are replaced, never changed, and a lane that is opened again
            never goes missing in between.
    """

    def __init__(self, limits: LaneLimits) -> None:
        self.by_channel: dict[ChannelReference, tuple[Lane, ...]] = {}
        self._limits = limits
        self._subscriptions: dict[SubscriptionReference, Lane] = {}
        self._sinks: dict[tuple[str, str], Lane] = {}

    def __iter__(self) -> Iterator[Lane]:
        yield from self._subscriptions.values()
        yield from self._sinks.values()

    def get(self, subscription: SubscriptionReference) -> Lane | None:
        """The lane of a subscription."""
        return self._subscriptions.get(subscription)

    def open(self, target: Target, now: float) -> Lane:
        """Open a subscription's lane, or change the lane's target; the events in it stay."""
        lane = self._subscriptions.get(target.subscription)
        if lane is None:
            lane = Lane(str(target.subscription), self._limits, target, now)
            self._subscriptions[target.subscription] = lane
        if lane.target is not None and lane.target.channel != target.channel:
            self._leave_channel(lane, lane.target.channel)
        lane.target = target
        lanes = self.by_channel.get(target.channel, ())
        if lane not in lanes:
            self.by_channel[target.channel] = (*lanes, lane)
        return lane

    def remove(self, subscription: SubscriptionReference) -> Lane | None:
        """Remove and return a subscription's lane; None if it has none."""
        lane = self._subscriptions.pop(subscription, None)
        if lane is not None and lane.target is not None:
            self._leave_channel(lane, lane.target.channel)
        return lane

    def sink(self, target: Target, now: float) -> Lane:
        """The lane of a subscription's dead-letter sink. Subscriptions of one namespace that name the same sink share
        it."""
        destination = target.spec.dead_letter_sink
        assert destination
        key = (target.channel.namespace, destination)
        lane = self._sinks.get(key)
        if lane is None:
            lane = self._sinks[key] = Lane(self._sink_name(*key), self._limits, None, now, destination)
        return lane

    def remove_unused_sinks(self) -> list[Lane]:
        """Remove and return the empty lanes of sinks whose counts were flushed."""
        unused = [key for key, lane in self._sinks.items() if not lane.events and not lane.stats.has_counts]
        return [self._sinks.pop(key) for key in unused]

    def _sink_name(self, namespace: str, destination: str) -> str:
        """Destinations that differ only in masked values get a number each."""
        name = f"sink {masked(destination)} of {namespace}"
        taken = {lane.name for lane in self._sinks.values()}
        number = 2
        shown = name
        while shown in taken:
            shown, number = f"{name} ({number})", number + 1
        return shown

    def _leave_channel(self, lane: Lane, channel: ChannelReference) -> None:
        others = tuple(other for other in self.by_channel.get(channel, ()) if other is not lane)
        if others:
            self.by_channel[channel] = others
        else:
            self.by_channel.pop(channel, None)
