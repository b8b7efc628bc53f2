"""Host, hooks: the driver's resource hooks, with a lane opened before `subscribe` and closed after `unsubscribe`."""

from __future__ import annotations

from bus_core.data_plane.delivery import Delivery, Target
from bus_core.driver.calls import DriverHooks
from bus_core.model.errors import PermanentError, TemporaryError
from bus_core.model.parameters import ResolvedParameters
from bus_core.model.resources import AnyBus, Channel, Subscription, effective_delivery


class HostHooks:
    """The hooks that the monitor calls: a `bus_core.control_plane.monitor.handler.Hooks`.

    Called on the monitor's threads, one call at a time for each channel.

    Args:
        driver: provides the hooks.
        delivery: has a lane for each subscription.
    """

    def __init__(self, driver: DriverHooks, delivery: Delivery) -> None:
        self.declared = driver.declared
        self.driver_name = driver.name
        self._driver = driver
        self._delivery = delivery
        self._open: set[str] = set()  # the uids of the subscriptions whose `subscribe` has succeeded
        self._closed = False

    def close(self) -> None:
        """Refuse every later call, because the driver is closing. A running call continues."""
        self._closed = True

    def sync_bus(self, bus: AnyBus) -> None:
        """Hand the Bus to the driver.

        Raises:
            PermanentError: the Bus names a driver that this host does not run.
        """
        self._require_open()
        if bus.spec.driver not in ("", self.driver_name):
            raise PermanentError(
                f"the bus names the driver {bus.spec.driver!r}, but this host runs {self.driver_name!r}: "
                "restart the host without --driver, or with the same driver"
            )
        self._driver.sync_bus(bus)

    def provision(self, channel: Channel, parameters: ResolvedParameters) -> None:
        self._require_open()
        self._driver.resources.provision(channel=channel, parameters=parameters)

    def unprovision(self, channel: Channel, parameters: ResolvedParameters) -> None:
        self._require_open()
        self._driver.resources.unprovision(channel=channel, parameters=parameters)

    def subscribe(
        self,
        channel: Channel,
        subscription: Subscription,
        parameters: ResolvedParameters,
        channel_parameters: ResolvedParameters,
    ) -> None:
        self._require_open()
        spec = subscription.spec
        delivery = effective_delivery(subscription, channel)
        target = Target(channel.reference, subscription.reference, spec.subscriber, spec.reply_to, delivery)
        self._delivery.open(target)
        try:
            self._driver.resources.subscribe(
                channel=channel,
                subscription=subscription,
                parameters=parameters,
                channel_parameters=channel_parameters,
            )
        except BaseException:
            if subscription.uid not in self._open:  # keep the lane of a subscription that worked before
                self._delivery.close(subscription.reference)
            raise
        self._open.add(subscription.uid)

    def unsubscribe(self, channel: Channel, subscription: Subscription) -> None:
        self._require_open()
        self._driver.resources.unsubscribe(channel=channel, subscription=subscription)
        self._open.discard(subscription.uid)
        self._delivery.close(subscription.reference)

    def _require_open(self) -> None:
        if self._closed:
            raise TemporaryError("the bus is stopping and its driver is closed")
