"""The stub bus: a driver that keeps events in memory, and the reference that driver authors copy.

Nothing stands behind its channels but the memory of the worker that accepted an event: ending that process abruptly
loses what it had not delivered. Retries, dead letters and bounds are the host's and hold for every driver.
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
    """Hands every event straight to the lanes of the channel's subscriptions."""

    api = 1

    def __init__(self, context: DriverContext) -> None:
        self._publish = context.publish
        self._log = context.logger

    # The host says at `info` what becomes of a channel; a driver that has more to say does so itself.

    @hookimpl
    def provision(self, channel: Channel, parameters: ResolvedParameters) -> None:
        # A driver with a broker makes the channel's topic here. This one has no assets outside the process.
        self._log.debug("provisioned", channel=str(channel.reference), parameters=dict(parameters))

    @hookimpl
    def unprovision(self, channel: Channel) -> None:
        self._log.debug("unprovisioned", channel=str(channel.reference))

    @hookimpl
    def subscribe(self, channel: Channel, subscription: Subscription) -> None:
        # A driver with a broker starts a consumer here, which hands what it reads to `context.submit`.
        self._log.debug("subscribed", channel=str(channel.reference), subscription=str(subscription.reference))

    @hookimpl
    def unsubscribe(self, channel: Channel, subscription: Subscription) -> None:
        self._log.debug("unsubscribed", channel=str(channel.reference), subscription=str(subscription.reference))

    @hookimpl
    async def receive(self, channel: ChannelReference, message: Message) -> None:
        # Never blocks: it queues the event for every subscription or raises BusyError, which is answered 503.
        self._publish(channel, message)
