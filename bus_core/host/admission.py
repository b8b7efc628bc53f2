"""Host, admission: hands an event to the driver. An absent channel is a 404, a channel that is not ready a 503."""

from __future__ import annotations

from collections.abc import Awaitable

from bus_core.control_plane.monitor import Availability, Monitor
from bus_core.driver.calls import DriverHooks
from bus_core.model.errors import TemporaryError, UnknownChannelError
from bus_core.model.message import Message
from bus_core.model.parameters import ResolvedParameters
from bus_core.model.references import BusReference, ChannelReference


class Admission:
    """Passes each event from the receiver to the driver, or refuses it.

        MessageReceiver → Admission.receive → DriverHooks.receive → the driver's receive → context.publish or submit

    `receive` and `receive_async` may be called from any thread.

    Args:
        bus: the bus, for error messages.
        monitor: knows which channels are ready.
        driver: takes the events.
    """

    def __init__(self, bus: BusReference, monitor: Monitor, driver: DriverHooks) -> None:
        self._bus = bus
        self._monitor = monitor
        self._driver = driver

    def receive(self, channel: ChannelReference, message: Message) -> Awaitable[None] | None:
        """Hand an event to a driver whose `receive` is a plain `def`.

        Raises:
            UnknownChannelError: the bus has no such channel.
            TemporaryError: the channel does not accept events yet.
            Exception: any error of the driver.
        """
        return self._driver.receive(channel, message, self._parameters(channel))

    async def receive_async(self, channel: ChannelReference, message: Message) -> None:
        """Hand an event to a driver whose `receive` is an `async def`. Raises the same errors as `receive`."""
        accepted: Awaitable[None] | None = self._driver.receive(channel, message, self._parameters(channel))
        if accepted is not None:
            await accepted

    def _parameters(self, channel: ChannelReference) -> ResolvedParameters:
        """The parameters of a channel that accepts events. Raises as `receive` does."""
        view = self._monitor.lookup(channel)
        if view.availability is Availability.READY:
            return view.parameters
        if view.availability is Availability.ABSENT:
            raise UnknownChannelError(f"there is no channel {channel} on the bus {self._bus}")
        raise TemporaryError(f"{channel}: {view.availability.value}")
