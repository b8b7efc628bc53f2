"""Monitor: the reconciler of a channel. It compares wanted and applied state, calls hooks, writes conditions."""

from __future__ import annotations

import threading

from bus_core.control_plane.monitor.applied_state import ChannelState, Result, frozen
from bus_core.control_plane.monitor.channel_view import ABSENT, Availability, ChannelView
from bus_core.control_plane.monitor.context import ReconcileContext
from bus_core.control_plane.monitor.reports import Reporter, Reports
from bus_core.control_plane.monitor.serving import Serving
from bus_core.control_plane.monitor.teardown import Teardown
from bus_core.model.references import ChannelReference, SubscriptionReference
from bus_core.model.resources import PROVISIONER, Channel, Role
from bus_core.telemetry import get_logger

log = get_logger(__name__)


class Reconciler:
    """Level-based: `reconcile` may be called at any time, for any channel, and does only the missing steps.

    Thread-safe as long as one channel is reconciled by one thread at a time, which the workqueue ensures.

    Attributes:
        views: the views that the event path reads, by channel. Each entry is replaced as a whole.
    """

    def __init__(self, context: ReconcileContext) -> None:
        self._context = context
        self._states: dict[ChannelReference, ChannelState] = {}
        self._again: dict[ChannelReference, set[str]] = {}
        self._again_lock = threading.Lock()  # guards the names to subscribe again
        self._reports = Reports(context.cache, context.clock)
        self.views: dict[ChannelReference, ChannelView] = {}

    def leads(self, role: Role) -> bool:
        return self._context.leads(role)

    def gained(self, role: Role) -> None:
        """Reset after this process gained a role: another process may have provisioned meanwhile."""
        if role != PROVISIONER:
            return
        for state in list(self._states.values()):
            stored = state.applied.provisioned_parameters if state.applied is not None else None
            if stored is not None and state.provisioned != (state.uid, frozen(stored)):
                state.provisioned = None

    def again(self, subscription: SubscriptionReference) -> ChannelReference | None:
        """Force `subscribe` at the next reconcile. Returns the channel to reconcile, or None if it is unknown."""
        channel = self._context.cache.channel_of(subscription)
        if channel is not None:
            with self._again_lock:
                self._again.setdefault(channel, set()).add(subscription.name)
        return channel

    def report(
        self, subscription: SubscriptionReference, reason: str, message: str, reporter: Reporter
    ) -> ChannelReference | None:
        """Store a report for the conditions. Returns the channel to reconcile, or None if it is unknown."""
        self._reports.put(subscription, reporter, reason, message)
        return self._context.cache.channel_of(subscription)

    def reconcile(self, reference: ChannelReference) -> tuple[Result, float | None]:
        """Bring one channel to its wanted state.

        Returns:
            The worst result of its hooks, and the seconds until the next reconcile (None: at the next change).

        Raises:
            TemporaryError: the source refused a write.
        """
        context = self._context
        channel = context.cache.channel(reference)
        state = self._states.setdefault(reference, ChannelState())
        wanted = channel is not None and channel.bus == context.cache.reference and not channel.deleted
        if state.applied is not None and (channel is None or channel.uid != state.uid or not wanted):
            self.views[reference] = ABSENT  # refuse events first, then tear down
        teardown = Teardown(context, self._reports, reference, state)
        try:
            if channel is not None and wanted:
                # Tear down an older channel of the same name before serving this one.
                if state.uid in ("", channel.uid) or self._end(teardown, None, reference):
                    self._serve(channel, state, teardown)
            else:
                self._end(teardown, channel, reference)
        finally:
            present = [channel, *context.cache.subscriptions(reference).values()]
            state.ended &= {resource.uid for resource in present if resource is not None}
            if state.is_empty:
                del self._states[reference]
        return state.summary(context.clock(), context.deletion_grace)

    def _end(self, teardown: Teardown, channel: Channel | None, reference: ChannelReference) -> bool:
        if not teardown.end_channel(channel):
            return False
        if channel is None or channel.bus != self._context.cache.reference:
            self.views.pop(reference, None)
        return True

    def _serve(self, channel: Channel, state: ChannelState, teardown: Teardown) -> None:
        state.applied, state.deleted_since = channel, None
        reference = channel.reference
        before = self.views.get(reference, ABSENT)
        if before.availability is Availability.ABSENT:
            self.views[reference] = ChannelView(Availability.UNPROVISIONED, channel)
        bus = self._context.cache.bus
        if bus is None:
            return  # without a Bus nothing new starts; working channels continue
        with self._again_lock:
            again = self._again.pop(reference, set())
        try:
            view = Serving(self._context, self._reports, teardown, bus, channel, state, again).run()
        finally:
            again &= set(self._context.cache.subscriptions(reference))
            if again:  # `subscribe` was not called, because another step comes first
                with self._again_lock:
                    self._again.setdefault(reference, set()).update(again)
        if view is None:
            return
        self.views[reference] = view
        if before.availability is not Availability.READY:
            log.info("serving", channel=str(reference), subscriptions=len(view.subscriptions))
