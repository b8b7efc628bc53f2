"""Monitor: the view of a channel that the event path reads. One immutable entry a channel, no lock."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field

from bus_core.model.parameters import ResolvedParameters
from bus_core.model.resources import Channel, Subscription


class Availability(enum.Enum):
    """Whether a channel accepts events. The value is the text for the sender."""

    UNSYNCED = "resources have not been read yet"
    ABSENT = "there is no such channel"
    UNPROVISIONED = "the channel is not provisioned yet"
    READY = "ready"


@dataclass(frozen=True, slots=True)
class ChannelView:
    """A channel after its last reconcile. `subscriptions`: those whose `subscribe` has succeeded, by name."""

    availability: Availability
    channel: Channel | None = None
    parameters: ResolvedParameters = field(default_factory=dict)
    subscriptions: Mapping[str, Subscription] = field(default_factory=dict)


ABSENT = ChannelView(Availability.ABSENT)
UNSYNCED = ChannelView(Availability.UNSYNCED)
