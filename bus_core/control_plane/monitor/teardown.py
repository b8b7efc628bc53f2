"""Monitor: ends a channel or subscription that is deleted, gone, replaced under its name, or another bus's."""

from __future__ import annotations

from bus_core.control_plane.monitor.applied_state import ChannelState, Fingerprint
from bus_core.control_plane.monitor.context import ReconcileContext
from bus_core.control_plane.monitor.parameter_checks import last_parameters
from bus_core.control_plane.monitor.reports import Reports
from bus_core.model.conditions import Condition
from bus_core.model.references import ChannelReference
from bus_core.model.resources import DISPATCHER, PROVISIONER, Channel, ChannelSpec, Metadata, Subscription


class Teardown:
    """Tears down unwanted resources under one channel's name. Created for one reconcile."""

    def __init__(
        self, context: ReconcileContext, reports: Reports, reference: ChannelReference, state: ChannelState
    ) -> None:
        self._context = context
        self._source = context.source
        self._reports = reports
        self._reference = reference
        self._state = state

    def end_channel(self, channel: Channel | None) -> bool:
        """Tear down the applied channel of this name: its subscriptions, then the channel, before a new one of the same
        name is served. Returns False if a hook needs a retry, or the grace period runs.

        Args:
            channel: the deleted channel while it exists; None if it has vanished, was replaced, or was never ours.
        """
        context, state = self._context, self._state
        ours = channel if channel is not None and channel.bus == context.cache.reference else None
        if DISPATCHER in context.roles:
            self._end_subscriptions(ours or state.applied or _stand_in(self._reference))
            if any(known.applied is not None and known.awaits_retry for known in state.subscriptions.values()):
                return False
        if ours is not None and not self._unprovision_deleted(ours):
            return False
        if ours is None and state.applied is not None and state.provisioned is not None and context.leads(PROVISIONER):
            self._unprovision(state.applied)  # the channel vanished or was replaced despite our finalizer
            if state.awaits_retry:
                return False
        state.reset()
        return True

    def release(self, channel: Channel, subscription: Subscription) -> None:
        """Stop serving a deleted subscription; the leader also removes the finalizer."""
        context, state = self._context, self._state
        known = state.subscriptions.get(subscription.name)
        if known is not None and known.applied is not None and not self.unsubscribe(channel, subscription):
            return
        if context.finalizer in subscription.metadata.finalizers and context.leads(DISPATCHER):
            if subscription.uid not in state.ended and not self.unsubscribe(channel, subscription):
                return
            self._source.remove_finalizer(subscription, context.finalizer)

    def unsubscribe(self, channel: Channel, subscription: Subscription) -> bool:
        """Call `unsubscribe`. Returns False if it failed, or is in back-off."""
        context, state = self._context, self._state.of(subscription.name)
        fingerprint: Fingerprint = (subscription.uid, "unsubscribe")
        if state.in_backoff(fingerprint, context.clock()):
            return False
        with context.attempt("unsubscribe", subscription, fingerprint, state) as attempt:
            context.hooks.unsubscribe(channel, subscription)
        if not context.settle(attempt, subscription, state):
            return False
        state.applied, state.fingerprint = None, ()
        self._reports.forget(subscription.reference)
        self._state.ended.add(subscription.uid)
        return True

    def _end_subscriptions(self, channel: Channel) -> None:
        context = self._context
        present = context.cache.subscriptions(self._reference)
        for applied in self._state.applied_subscriptions().values():
            self.unsubscribe(channel, applied)
        for subscription in present.values():
            if subscription.deleted:
                self.release(channel, subscription)
            elif context.finalizer in subscription.metadata.finalizers and context.leads(DISPATCHER):
                message = f"there is no channel {subscription.channel}"
                conditions = [Condition(kind, "False", "ChannelNotFound", message) for kind in ("Dispatching", "Ready")]
                self._source.write_conditions(subscription, conditions)
        # Without the channel, a failed unsubscribe is retried, a failed subscribe is not.
        self._state.forget_absent({subscription.name for subscription in present.values() if subscription.deleted})

    def _unprovision_deleted(self, channel: Channel) -> bool:
        """Unprovision a deleted channel. Returns False while the grace period runs, or if the hook failed."""
        context, state = self._context, self._state
        if context.finalizer not in channel.metadata.finalizers or not context.leads(PROVISIONER):
            return True
        now = context.clock()
        if state.deleted_since is None:
            state.deleted_since = now
        if now < state.deleted_since + context.deletion_grace and context.cache.bus is not None:
            return False  # the missing Bus may mean that the namespace, with our permissions, is being deleted
        if channel.uid not in state.ended and not self._unprovision(channel):
            return False
        self._source.remove_reachability(channel)
        self._source.remove_finalizer(channel, context.finalizer)
        return True

    def _unprovision(self, channel: Channel) -> bool:
        context, state = self._context, self._state
        fingerprint: Fingerprint = (channel.uid, "unprovision")
        if state.in_backoff(fingerprint, context.clock()):
            return False
        parameters = last_parameters(context.hooks.declared, context.cache.bus, channel)
        with context.attempt("unprovision", channel, fingerprint, state) as attempt:
            context.hooks.unprovision(channel, parameters)
        if not context.settle(attempt, channel, state):
            return False
        state.ended.add(channel.uid)
        state.provisioned = None
        return True


def _stand_in(reference: ChannelReference) -> Channel:
    """Stands for a channel of which only the name is known: it was deleted while no process ran."""
    return Channel(Metadata(reference.name, reference.namespace, deleted=True), spec=ChannelSpec())
