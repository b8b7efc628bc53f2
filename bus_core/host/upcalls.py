"""Host, upward calls: the only five calls from a lower room to a higher one.

    caller      call              reaches     purpose
    driver      context.publish   delivery    queue an event for every subscription of a channel
    driver      context.submit    delivery    queue an event for one subscription
    driver      context.report    monitor     set a subscription's condition
    delivery    subscriber_report monitor     set a subscription's condition from its deliveries
    dispatch    local_destination monitor     find out whether a destination is a channel of this bus

The host creates delivery, then the driver, then the monitor. So `publish` and `submit` are methods of `Delivery`. The
other three calls pass through `Upcalls`, which gets the monitor last.
"""

from __future__ import annotations

from bus_core.control_plane.monitor import Availability, Monitor
from bus_core.host.run_config import FromFolder, RunConfig
from bus_core.model.addresses import format_address
from bus_core.model.references import CHANNEL_SERVICE_SUFFIX, ChannelReference, SubscriptionReference

_LOOPBACK = {"0.0.0.0": "127.0.0.1", "::": "::1"}
"""The address at which a process reaches itself if it listens on a wildcard address."""


class Upcalls:
    """The upward calls that end in the monitor. Each method is thread-safe and never blocks.

    Args:
        config: of this run.
        events: the address on which this bus receives events.
    """

    def __init__(self, config: RunConfig, events: tuple[str, int]) -> None:
        self._config = config
        self._events = events
        self._monitor: Monitor | None = None

    def connect(self, monitor: Monitor) -> None:
        """Set the monitor. Call it once, before the monitor starts. Earlier reports are ignored."""
        self._monitor = monitor

    def report(self, subscription: SubscriptionReference, reason: str = "", message: str = "") -> None:
        """The driver's report: see `bus_core.driver.hookspecs.Report`."""
        if self._monitor is not None:
            self._monitor.report(subscription, reason, message)

    def subscriber_report(self, subscription: SubscriptionReference, reason: str, message: str) -> None:
        """Delivery's report: the subscriber fails (`reason`), or delivers again (`reason` is empty)."""
        if self._monitor is not None:
            self._monitor.report(subscription, reason, message, reporter="delivery")

    def local_destination(self, name: str, namespace: str) -> tuple[str, str] | None:
        """The address of a single-label destination that is a channel of this bus, or the Service of a channel.

        Returns:
            The URL of our own receiver and the Host header of the channel; None for any other name.
        """
        channel = ChannelReference(name.removesuffix(CHANNEL_SERVICE_SUFFIX), namespace)
        if channel.name == name and not isinstance(self._config.origin, FromFolder):
            return None  # in a cluster the name is a Service's, and a channel's Service is NAME-channel
        known = (Availability.READY, Availability.UNPROVISIONED)
        if self._monitor is None or self._monitor.lookup(channel).availability not in known:
            return None
        host, port = self._events
        return f"http://{format_address((_LOOPBACK.get(host, host), port))}/", f"{channel.name}.{namespace}"
