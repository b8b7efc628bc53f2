"""Host, upward calls: the five calls by which a lower room reaches a higher one. There are no others.

    caller      call              reaches     what for
    driver      context.publish   delivery    queue an event for every subscription of a channel
    driver      context.submit    delivery    queue an event for one subscription
    driver      context.report    monitor     a subscription's condition, as the driver sees it
    delivery    subscriber_report monitor     a subscription's condition, as its deliveries went
    dispatch    local_destination monitor     the address of a channel of this bus, which is our own receiver

The host makes delivery before the driver and the monitor after it. So `publish` and `submit` are methods of `Delivery`
itself; the other three pass through `Upcalls`, which gets the monitor last.
"""

from __future__ import annotations

from bus_core.control_plane.monitor import Availability, Monitor
from bus_core.host.run_config import FromFolder, RunConfig
from bus_core.model.addresses import format_address
from bus_core.model.references import CHANNEL_SERVICE_SUFFIX, ChannelReference, SubscriptionReference

_LOOPBACK = {"0.0.0.0": "127.0.0.1", "::": "::1"}
"""Where a process reaches itself if it listens on every address."""


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
        """Say where the calls lead. Call it once, before the monitor starts; an earlier report is ignored."""
        self._monitor = monitor

    def report(self, subscription: SubscriptionReference, reason: str = "", message: str = "") -> None:
        """The driver's report: `bus_core.driver.hookspecs.Report`."""
        if self._monitor is not None:
            self._monitor.report(subscription, reason, message)

    def subscriber_report(self, subscription: SubscriptionReference, reason: str, message: str) -> None:
        """Delivery's report: the subscriber fails (`reason`), or delivers again (`reason` is empty)."""
        if self._monitor is not None:
            self._monitor.report(subscription, reason, message, reporter="delivery")

    def local_destination(self, name: str, namespace: str) -> tuple[str, str] | None:
        """Where a single-label destination leads if it is a channel of this bus, or the Service of one.

        Returns:
            The URL of our own receiver and the Host header of the channel; None for any other name.
        """
        channel = ChannelReference(name.removesuffix(CHANNEL_SERVICE_SUFFIX), namespace)
        if channel.name == name and not isinstance(self._config.origin, FromFolder):
            return None  # in a cluster a name is that of a Service, and the Service of a channel is NAME-channel
        known = (Availability.READY, Availability.UNPROVISIONED)
        if self._monitor is None or self._monitor.lookup(channel).availability not in known:
            return None
        host, port = self._events
        return f"http://{format_address((_LOOPBACK.get(host, host), port))}/", f"{channel.name}.{namespace}"
