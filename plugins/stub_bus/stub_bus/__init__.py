"""Driver: the stub bus. It keeps events in memory, and it is the reference that driver authors copy.

An event exists only in the memory of the worker that accepted it. If that process is killed, its undelivered events are
lost. The host does retries, dead letters and bounds, in the same way for every driver.
"""

from __future__ import annotations

from bus_core import (
    Channel,
    ChannelReference,
    DriverContext,
    Message,
    ResolvedParameters,
    Subscription,
    hookimpl,
)

__all__ = ["StubBus"]


class StubBus:
    """Publishes every event at once to all subscriptions of its channel."""

    api = 1

    def __init__(self, context: DriverContext) -> None:
        self._publish = context.publish
        self._log = context.logger

    # The host logs these changes at level `info`. A driver logs what only it knows.

    @hookimpl
    def provision(self, channel: Channel, parameters: ResolvedParameters) -> None:
        # A driver with a broker creates the channel's topic here. This one has nothing outside the process.
        self._log.debug("provisioned", channel=str(channel.reference), parameters=dict(parameters))

    @hookimpl
    def unprovision(self, channel: Channel) -> None:
        self._log.debug("unprovisioned", channel=str(channel.reference))

    @hookimpl
    def subscribe(self, channel: Channel, subscription: Subscription) -> None:
        # A driver with a broker starts a consumer here. It passes each event that it reads to `context.submit`.
        self._log.debug("subscribed", channel=str(channel.reference), subscription=str(subscription.reference))

    @hookimpl
    def unsubscribe(self, channel: Channel, subscription: Subscription) -> None:
        self._log.debug("unsubscribed", channel=str(channel.reference), subscription=str(subscription.reference))

    @hookimpl
    async def receive(self, channel: ChannelReference, message: Message) -> None:
        # `publish` never blocks. It queues the event for all subscriptions, or raises BusyError: the answer is 503.
        self._publish(channel, message)
