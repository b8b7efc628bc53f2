"""Monitor: serves a wanted channel. It is provisioned, its subscriptions are subscribed, conditions say so."""

from __future__ import annotations

from typing import Final

from bus_core.control_plane.monitor.applied_state import ChannelState, Fingerprint, SubscriptionState, frozen
from bus_core.control_plane.monitor.channel_view import Availability, ChannelView
from bus_core.control_plane.monitor.condition_rules import channel_conditions, subscription_conditions
from bus_core.control_plane.monitor.context import ERR_RESOURCE_SYNC, SYNCED, ReconcileContext
from bus_core.control_plane.monitor.parameter_checks import parameters_in_force
from bus_core.control_plane.monitor.reports import Reports
from bus_core.control_plane.monitor.teardown import Teardown
from bus_core.model.parameters import ResolvedParameters
from bus_core.model.resources import DISPATCHER, PROVISIONER, AnyBus, Channel, Subscription, effective_delivery

REACH_AGAIN: Final = 60.0
"""Seconds, plus or minus half of that, until a retry to create a channel's Service."""


class Serving:
    """Brings one channel to its wanted state. Created for one reconcile.

    Args:
        bus: the current Bus.
        state: the channel's state, which this object changes.
        again: the subscriptions with a forced `subscribe`. This object removes the done ones.
    """

    def __init__(
        self,
        context: ReconcileContext,
        reports: Reports,
        teardown: Teardown,
        bus: AnyBus,
        channel: Channel,
        state: ChannelState,
        again: set[str],
    ) -> None:
        self._context = context
        self._source = context.source
        self._reports = reports
        self._teardown = teardown
        self._bus = bus
        self._channel = channel
        self._state = state
        self._again = again

    def run(self) -> ChannelView | None:
        """Call the hooks whose arguments differ, and write conditions. Returns a new view, or None to keep the old one.

        Raises:
            TemporaryError: the source refused a write.
        """
        context, channel, state = self._context, self._channel, self._state
        wanted = context.resolve("channel", self._bus, channel, state)
        if context.leads(PROVISIONER):
            if wanted is not None:
                self._provision(wanted)
            self._write_channel_conditions(wanted)
        if not channel.is_true("Provisioned"):
            return None
        parameters = parameters_in_force(context.hooks.declared, self._bus, channel)
        if parameters is None:
            parameters = state.in_force  # a newly required parameter does not stop a working channel
        state.in_force = parameters
        if DISPATCHER in context.roles:
            self._sync_subscriptions(parameters)
        if parameters is None:
            return None  # this process has never known the parameters
        return ChannelView(Availability.READY, channel, parameters, state.applied_subscriptions())

    # The channel.

    def _provision(self, parameters: ResolvedParameters) -> None:
        context, channel, state = self._context, self._channel, self._state
        fingerprint: Fingerprint = (channel.uid, frozen(parameters))
        if state.provisioned == fingerprint or state.in_backoff(fingerprint, context.clock()):
            return
        if not context.ensure_finalizer(channel, state, fingerprint) or not context.leads(PROVISIONER):
            return
        with context.attempt("provision", channel, fingerprint, state) as attempt:
            context.hooks.provision(channel, parameters)
        if context.settle(attempt, channel, state):
            state.provisioned = fingerprint
            context.warn_of_ignored(channel)
            if not channel.shows("Provisioned"):  # else an earlier process has recorded it
                self._source.record_event(channel, SYNCED, "the channel is provisioned")

    def _write_channel_conditions(self, wanted: ResolvedParameters | None) -> None:
        context, channel, state = self._context, self._channel, self._state
        if not context.leads(PROVISIONER) or (state.failure is None and state.provisioned is None):
            return  # this process does not lead, or `provision` was not tried yet
        works = state.provisioned is not None or channel.is_true("Provisioned")
        reachable = self._source.ensure_reachable(channel)
        # No watch reports when a Service that could not be created can be created, so try again after a while.
        unmade = any(condition.type == "Serviceable" and condition.status == "False" for condition in reachable)
        state.reach_again = context.clock() + REACH_AGAIN * (0.5 + context.jitter()) if unmade else None
        conditions = channel_conditions(state.failure, works=works, note=context.ignored(channel), reached=reachable)
        done = wanted is not None and state.provisioned == (channel.uid, frozen(wanted))
        self._source.write_conditions(channel, conditions, provisioned_parameters=wanted if done else None)

    # Its subscriptions.

    def _sync_subscriptions(self, channel_parameters: ResolvedParameters | None) -> None:
        channel, state = self._channel, self._state
        present = self._context.cache.subscriptions(channel.reference)
        for name, applied in state.applied_subscriptions().items():
            now = present.get(name)
            if now is None or now.deleted or now.uid != applied.uid:
                self._teardown.unsubscribe(channel, applied)
        for subscription in present.values():
            if subscription.deleted:
                self._teardown.release(channel, subscription)
            elif channel_parameters is not None:
                self._sync_subscription(subscription, channel_parameters)
        state.forget_absent(set(present))

    def _sync_subscription(self, subscription: Subscription, channel_parameters: ResolvedParameters) -> None:
        context, state = self._context, self._state.of(subscription.name)
        unkept = None
        finalizer: Fingerprint = (subscription.uid, "finalizer")
        if context.leads(DISPATCHER) and not context.ensure_finalizer(subscription, state, finalizer):
            unkept = state.failure  # events are dispatched despite the missing finalizer
        parameters = context.resolve("subscription", self._bus, subscription, state)
        if parameters is not None:
            self._subscribe(subscription, state, parameters, channel_parameters)
        if state.failure is None:
            state.failure = unkept
        if context.leads(DISPATCHER):
            self._write_subscription_conditions(subscription, state)

    def _subscribe(
        self,
        subscription: Subscription,
        state: SubscriptionState,
        parameters: ResolvedParameters,
        channel_parameters: ResolvedParameters,
    ) -> None:
        context, channel, spec = self._context, self._channel, subscription.spec
        identity = (subscription.uid, channel.uid, frozen(parameters), frozen(channel_parameters))
        fingerprint = (*identity, spec.subscriber, spec.reply_to, effective_delivery(subscription, channel))
        differs = state.applied is None or state.fingerprint != fingerprint
        due = differs and not state.in_backoff(fingerprint, context.clock())
        if not due and subscription.name not in self._again:
            return
        if state.applied is not None and state.applied.uid != subscription.uid and state.awaits_retry:
            return  # the older subscription of this name has to be unsubscribed first
        self._again.discard(subscription.name)
        with context.attempt("subscribe", subscription, fingerprint, state) as attempt:
            context.hooks.subscribe(channel, subscription, parameters, channel_parameters)
        if not context.settle(attempt, subscription, state):
            return
        state.applied, state.fingerprint = subscription, fingerprint
        self._state.ended.discard(subscription.uid)
        if context.leads(DISPATCHER):
            context.warn_of_ignored(subscription)
            if not subscription.shows("Dispatching"):
                self._source.record_event(subscription, SYNCED, "events are dispatched to the subscriber")

    def _write_subscription_conditions(self, subscription: Subscription, state: SubscriptionState) -> None:
        reported = self._reports.get(subscription.reference)
        before = subscription.condition("Dispatching")
        if state.failure is None and reported is not None and (before is None or before.reason != reported[0]):
            self._source.record_event(subscription, ERR_RESOURCE_SYNC, ": ".join(reported), warning=True)
        note = self._context.ignored(subscription)
        self._source.write_conditions(subscription, subscription_conditions(state.failure, reported, note=note))
