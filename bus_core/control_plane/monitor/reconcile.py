"""Reconcile one channel: compare what is wanted with what the hooks were told, call those that differ, say so."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection
from functools import partial
from random import random

from bus_core.control_plane.leadership import Leadership
from bus_core.control_plane.monitor.applied_state import (
    REPORTERS,
    Failure,
    Fingerprint,
    Reporter,
    Result,
    Told,
    ToldSubscription,
    attempt,
)
from bus_core.control_plane.monitor.cache import Cache
from bus_core.control_plane.monitor.channel_view import ABSENT, Availability, ChannelView
from bus_core.control_plane.monitor.condition_rules import channel_conditions, subscription_conditions
from bus_core.control_plane.monitor.handler import Hooks
from bus_core.control_plane.monitor.parameter_checks import ignored_arguments, last_parameters
from bus_core.control_plane.sources import Source
from bus_core.model.conditions import Condition
from bus_core.model.errors import ForbiddenError, ParameterError
from bus_core.model.parameters import ParameterScope, ResolvedParameters, resolve_parameters
from bus_core.model.references import ChannelReference, SubscriptionReference
from bus_core.model.resources import (
    DISPATCHER,
    PROVISIONER,
    AnyBus,
    Channel,
    ChannelSpec,
    Metadata,
    Resource,
    Role,
    Subscription,
    effective_delivery,
)
from bus_core.telemetry import get_logger

SYNCED = "Synced"
ERR_RESOURCE_SYNC = "ErrResourceSync"

REACH_AGAIN = 60.0
"""Seconds, give or take half of it, until a channel's Service that could not be made is tried again."""

log = get_logger(__name__)


class Reconciler:
    """Level-based: `reconcile` may be called at any time, for any channel, and does only what is missing.

    Thread-safe as long as one channel is reconciled by one thread at a time, which the workqueue ensures.
    """

    def __init__(
        self,
        hooks: Hooks,
        cache: Cache,
        source: Source,
        leadership: Leadership,
        roles: Collection[Role],
        *,
        deletion_grace: float,
        clock: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = random,
    ) -> None:
        self._hooks = hooks
        self._cache = cache
        self._source = source
        self._leadership = leadership
        self._roles = frozenset(roles)
        self._grace = deletion_grace
        self._clock = clock
        self._jitter = jitter
        self._told: dict[ChannelReference, Told] = {}
        self._again: set[SubscriptionReference] = set()
        self._reports: dict[SubscriptionReference, dict[Reporter, tuple[str, str]]] = {}
        self._reporting = threading.Lock()
        self.finalizer = f"bus-core/{cache.reference.name}"
        self.views: dict[ChannelReference, ChannelView] = {}

    def leads(self, role: Role) -> bool:
        return role in self._roles and self._leadership.held(role)

    def again(self, subscription: SubscriptionReference) -> None:
        """Tell `subscribe` once more at the next reconcile, although nothing differs."""
        self._again.add(subscription)

    def report(
        self, subscription: SubscriptionReference, reason: str, message: str, reporter: Reporter
    ) -> ChannelReference | None:
        """Keep what is said of a subscription, for its conditions; the channel to reconcile, if it is known."""
        with self._reporting:  # a driver's threads and delivery's
            said = {name: what for name, what in self._reports.get(subscription, {}).items() if name != reporter}
            self._reports[subscription] = said | ({reporter: (reason, message)} if reason else {})
        for reference, view in list(self.views.items()):
            if reference.namespace == subscription.namespace and subscription.name in view.subscriptions:
                return reference
        return None

    def reconcile(self, reference: ChannelReference) -> tuple[Result, float | None]:
        """Bring one channel to what is wanted.

        Returns:
            The worst result of its hooks, and in how many seconds to come back (None: when something changes).

        Raises:
            TemporaryError: the source did not take a write.
        """
        channel = self._cache.channel(reference)
        told = self._told.setdefault(reference, Told())
        wanted = channel is not None and channel.bus == self._cache.reference and not channel.deleted
        if told.uid and (channel is None or channel.uid != told.uid or not wanted):
            self.views[reference] = ABSENT  # refuse first, then take apart
        try:
            if channel is not None and wanted:
                # Under its name another one may still be on its way out: first that, then this.
                if not told.uid or told.uid == channel.uid or self._end(reference, told, None):
                    self._serve(reference, channel, told)
            else:
                self._end(reference, told, channel)
        finally:
            present = [channel, *self._cache.subscriptions(reference).values()]
            told.ended &= {resource.uid for resource in present if resource is not None}
            if not (told.channel or told.failures or told.subscriptions or told.ended) and told.deleted_since is None:
                del self._told[reference]
        return told.summary(self._clock(), self._grace)

    # A channel that is wanted.

    def _serve(self, reference: ChannelReference, channel: Channel, told: Told) -> None:
        told.uid, told.channel, told.deleted_since = channel.uid, channel, None
        bus = self._cache.bus
        view = self.views.get(reference, ABSENT)
        if view.availability is Availability.ABSENT:
            self.views[reference] = view = ChannelView(Availability.UNPROVISIONED, channel)
        if bus is None:
            return  # nothing new without a Bus; what works goes on
        resolved = self._resolve("channel", bus, channel, told)
        if resolved is not None:
            told.parameters = parameters = resolved
            if self.leads(PROVISIONER):
                self._provision(channel, parameters, told)
        if self.leads(PROVISIONER):
            self._write_channel_conditions(channel, told)
        if not channel.is_true("Provisioned"):
            return
        if DISPATCHER in self._roles:
            self._subscriptions(reference, channel, bus, told)
        if told.parameters is not None:  # else this process has never known any: nobody may guess them
            subscriptions = {name: known.subscription for name, known in told.subscriptions.items()}
            self.views[reference] = ChannelView(Availability.READY, channel, told.parameters, subscriptions)
            if view.availability is not Availability.READY:
                log.info("serving", channel=str(reference), subscriptions=len(subscriptions))

    def _provision(self, channel: Channel, parameters: ResolvedParameters, told: Told) -> None:
        fingerprint: Fingerprint = (channel.uid, _frozen(parameters))
        if told.provisioned == fingerprint or self._waits(told, "", fingerprint):
            return
        if not self._keep(channel, told, "", fingerprint) or not self.leads(PROVISIONER):
            return
        call = partial(self._hooks.provision, channel, parameters)
        if self._attempt(told, "", fingerprint, f"provision {channel.reference}", channel, call):
            told.provisioned = fingerprint
            self._warn_of_ignored(channel)
            if not channel.shows("Provisioned"):  # else it is only this process that is new
                self._source.record_event(channel, SYNCED, "the channel is provisioned")

    def _write_channel_conditions(self, channel: Channel, told: Told) -> None:
        failure = told.failures.get("")
        works = told.provisioned is not None or channel.is_true("Provisioned")
        note = ignored_arguments(self._hooks.declared, self._cache.bus, channel)
        if failure is None and told.provisioned is None:
            return  # its turn has not come
        reached = self._source.reach(channel)
        # The bus's own Service is watched; a channel's that could not be made is not, and nobody tells when it could.
        unmade = any(condition.type == "Serviceable" and condition.status == "False" for condition in reached)
        told.reach_again = self._clock() + REACH_AGAIN * (0.5 + self._jitter()) if unmade else None
        conditions = channel_conditions(failure, works=works, note=note, reached=reached)
        self._source.write_conditions(channel, conditions)

    def _subscriptions(self, reference: ChannelReference, channel: Channel, bus: AnyBus, told: Told) -> None:
        present = self._cache.subscriptions(reference)
        for name, known in list(told.subscriptions.items()):
            now = present.get(name)
            if now is None or now.deleted or now.uid != known.subscription.uid:
                self._unsubscribe(channel, known.subscription, told)
        for subscription in present.values():
            if subscription.deleted:
                self._release_subscription(channel, subscription, told)
            elif told.parameters is not None:
                self._subscribe(channel, subscription, bus, told, told.parameters)
        gone = [name for name in told.failures if name and name not in present and name not in told.subscriptions]
        for name in gone:
            del told.failures[name]

    def _subscribe(
        self,
        channel: Channel,
        subscription: Subscription,
        bus: AnyBus,
        told: Told,
        channel_parameters: ResolvedParameters,
    ) -> None:
        name = subscription.name
        unkept = None
        if self.leads(DISPATCHER) and not self._keep(subscription, told, name, (subscription.uid, "finalizer")):
            unkept = told.failures[name]  # events are dispatched all the same
        parameters = self._resolve("subscription", bus, subscription, told)
        if parameters is not None:
            delivery = effective_delivery(subscription, channel)
            spec = subscription.spec
            identity = (subscription.uid, channel.uid, _frozen(parameters), _frozen(channel_parameters))
            fingerprint: Fingerprint = (*identity, spec.subscriber, spec.reply_to, delivery)
            known = told.subscriptions.get(name)
            again = subscription.reference in self._again
            due = again or (
                (known is None or known.fingerprint != fingerprint) and not self._waits(told, name, fingerprint)
            )
            # One that was under this name before may still be on its way out: first that, then this.
            if due and (known is None or known.subscription.uid == subscription.uid or not told.comes_back_to(name)):
                self._again.discard(subscription.reference)
                call = partial(self._hooks.subscribe, channel, subscription, parameters, channel_parameters)
                what = f"subscribe {subscription.reference}"
                if self._attempt(told, name, fingerprint, what, subscription, call):
                    told.subscriptions[name] = ToldSubscription(subscription, fingerprint)
                    told.ended.discard(subscription.uid)
                    if self.leads(DISPATCHER):
                        self._warn_of_ignored(subscription)
                    if self.leads(DISPATCHER) and not subscription.shows("Dispatching"):
                        self._source.record_event(subscription, SYNCED, "events are dispatched to the subscriber")
        if unkept is not None:
            told.failures.setdefault(name, unkept)
        if self.leads(DISPATCHER):
            failure = told.failures.get(name)
            said = self._reports.get(subscription.reference, {})
            reported = next((said[reporter] for reporter in REPORTERS if reporter in said), None)
            note = ignored_arguments(self._hooks.declared, self._cache.bus, subscription)
            before = subscription.condition("Dispatching")
            if failure is None and reported is not None and (before is None or before.reason != reported[0]):
                self._source.record_event(subscription, ERR_RESOURCE_SYNC, ": ".join(reported), warning=True)
            self._source.write_conditions(subscription, subscription_conditions(failure, reported, note=note))

    # What is no longer wanted.

    def _end(self, reference: ChannelReference, told: Told, channel: Channel | None) -> bool:
        """Take apart a channel that is deleted, gone, replaced under its name, or another bus's. False while a hook is
        to be tried again, or the grace period runs: subscriptions end before their channel, and it before another."""
        ours = channel if channel is not None and channel.bus == self._cache.reference else None
        last = ours or told.channel or _stand_in(reference)
        if DISPATCHER in self._roles:
            self._end_subscriptions(reference, last, told)
            if any(told.comes_back_to(name) for name in told.subscriptions):
                return False
        if ours is not None and not self._unprovision_deleted(ours, told):
            return False
        if ours is None and told.channel is not None and told.provisioned is not None and self.leads(PROVISIONER):
            self._call_unprovision(told.channel, told)  # it vanished, or was replaced, without waiting for us
            if told.comes_back_to(""):
                return False
        told.uid, told.channel, told.provisioned, told.deleted_since, told.reach_again = "", None, None, None, None
        told.failures.pop("", None)
        if ours is None:
            self.views.pop(reference, None)
        return True

    def _end_subscriptions(self, reference: ChannelReference, channel: Channel, told: Told) -> None:
        present = self._cache.subscriptions(reference)
        for known in list(told.subscriptions.values()):
            self._unsubscribe(channel, known.subscription, told)
        for subscription in present.values():
            if subscription.deleted:
                self._release_subscription(channel, subscription, told)
            elif self.finalizer in subscription.metadata.finalizers and self.leads(DISPATCHER):
                message = f"there is no channel {subscription.channel}"
                conditions = [Condition(kind, "False", "ChannelNotFound", message) for kind in ("Dispatching", "Ready")]
                self._source.write_conditions(subscription, conditions)

    def _unprovision_deleted(self, channel: Channel, told: Told) -> bool:
        """False while the grace period runs, or when the hook failed."""
        if self.finalizer not in channel.metadata.finalizers or not self.leads(PROVISIONER):
            return True
        now = self._clock()
        if told.deleted_since is None:
            told.deleted_since = now
        if now < told.deleted_since + self._grace and self._cache.bus is not None:
            return False  # without the Bus the whole namespace may be going, and our rights with it
        if channel.uid not in told.ended:
            if told.parameters is None:
                told.parameters = last_parameters(self._hooks.declared, self._cache.bus, channel)
            if not self._call_unprovision(channel, told):
                return False
        self._source.unreach(channel)
        self._source.remove_finalizer(channel, self.finalizer)
        return True

    def _call_unprovision(self, channel: Channel, told: Told) -> bool:
        fingerprint: Fingerprint = (channel.uid, "unprovision")
        if self._waits(told, "", fingerprint):
            return False
        call = partial(self._hooks.unprovision, channel, told.parameters or {})
        if self._attempt(told, "", fingerprint, f"unprovision {channel.reference}", channel, call):
            told.ended.add(channel.uid)
            told.provisioned = None
            return True
        return False

    def _release_subscription(self, channel: Channel, subscription: Subscription, told: Told) -> None:
        """A deleted subscription: this process stops serving it, and the leader lets it go."""
        if subscription.name in told.subscriptions and not self._unsubscribe(channel, subscription, told):
            return
        if self.finalizer in subscription.metadata.finalizers and self.leads(DISPATCHER):
            if subscription.uid not in told.ended and not self._unsubscribe(channel, subscription, told):
                return
            self._source.remove_finalizer(subscription, self.finalizer)

    def _unsubscribe(self, channel: Channel, subscription: Subscription, told: Told) -> bool:
        fingerprint: Fingerprint = (subscription.uid, "unsubscribe")
        name = subscription.name
        if self._waits(told, name, fingerprint):
            return False
        call = partial(self._hooks.unsubscribe, channel, subscription)
        if not self._attempt(told, name, fingerprint, f"unsubscribe {subscription.reference}", subscription, call):
            return False
        told.subscriptions.pop(name, None)
        self._reports.pop(subscription.reference, None)
        told.ended.add(subscription.uid)
        return True

    # Shared.

    def _keep(self, resource: Channel | Subscription, told: Told, name: str, fingerprint: Fingerprint) -> bool:
        """Put our finalizer on a resource; False where that is not allowed, which its conditions then say."""
        try:
            self._source.add_finalizer(resource, self.finalizer)
        except ForbiddenError as error:
            before = told.failures.get(name)
            until = self._clock() + error.retry_after
            told.failures[name] = Failure(fingerprint, "temporary", "Forbidden", str(error), until)
            if before is None or before.message != str(error):
                self._source.record_event(resource, ERR_RESOURCE_SYNC, str(error), warning=True)
            return False
        failure = told.failures.get(name)
        if failure is not None and failure.reason == "Forbidden":
            del told.failures[name]
        return True

    def _attempt(
        self, told: Told, name: str, fingerprint: Fingerprint, what: str, resource: Resource, call: Callable[[], None]
    ) -> bool:
        before = told.failures.pop(name, None)
        failure = attempt(call, before, fingerprint, what, self._clock, self._jitter)
        if failure is None:
            return True
        told.failures[name] = failure
        if before is None or before.message != failure.message:
            self._source.record_event(resource, ERR_RESOURCE_SYNC, f"{what}: {failure.message}", warning=True)
        return False

    def _waits(self, told: Told, name: str, fingerprint: Fingerprint) -> bool:
        failure = told.failures.get(name)
        return failure is not None and failure.fingerprint == fingerprint and self._clock() < failure.until

    def _resolve(
        self, scope: ParameterScope, bus: AnyBus, resource: Channel | Subscription, told: Told
    ) -> ResolvedParameters | None:
        name = resource.name if scope == "subscription" else ""
        arguments = resource.spec.arguments
        try:
            resolved, _ = resolve_parameters(scope, self._hooks.declared, bus.spec.parameters, arguments=arguments)
        except ParameterError as error:
            fingerprint: Fingerprint = (resource.uid, "parameters", str(error))
            before = told.failures.get(name)
            if before is None or before.fingerprint != fingerprint:
                told.failures[name] = Failure(fingerprint, "permanent", "MissingParameter", str(error), float("inf"))
                self._source.record_event(resource, ERR_RESOURCE_SYNC, str(error), warning=True)
            return None
        failure = told.failures.get(name)
        if failure is not None and failure.reason == "MissingParameter":
            del told.failures[name]
        return resolved

    def _warn_of_ignored(self, resource: Channel | Subscription) -> None:
        note = ignored_arguments(self._hooks.declared, self._cache.bus, resource)
        said = resource.condition("Ready")
        if note and (said is None or said.message != note):  # else it is only this process that is new
            self._source.record_event(resource, ERR_RESOURCE_SYNC, f"arguments are {note}", warning=True)


def _frozen(parameters: ResolvedParameters) -> tuple[tuple[str, str], ...]:
    return tuple(sorted(parameters.items()))


def _stand_in(reference: ChannelReference) -> Channel:
    """A channel of which nothing but the name is known: it was deleted while nobody ran."""
    return Channel(Metadata(reference.name, reference.namespace, deleted=True), spec=ChannelSpec())
