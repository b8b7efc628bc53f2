"""Monitor: the state last applied to the driver, of one channel and its subscriptions, and failures to retry."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

from bus_core.model.parameters import ResolvedParameters
from bus_core.model.resources import Channel, Subscription

Result = Literal["ok", "temporary", "permanent", "error"]

Fingerprint = tuple[object, ...]
"""The arguments of a hook call. After a success the hook is not called again with them; after a failure it waits."""


@dataclass(slots=True)
class Failure:
    """A failed step. It is not retried with the same fingerprint before `until` (monotonic seconds)."""

    fingerprint: Fingerprint
    result: Result
    reason: str
    message: str
    until: float
    times: int = 1

    @property
    def is_final(self) -> bool:
        """Whether only a change of the resource leads to a retry."""
        return self.until == math.inf


@dataclass(slots=True)
class HookState:
    """The hooks of one resource: the failure of the last hook, or None if it succeeded."""

    failure: Failure | None = None

    def in_backoff(self, fingerprint: Fingerprint, now: float) -> bool:
        """Whether a hook failed with this fingerprint and its back-off still runs."""
        return self.failure is not None and self.failure.fingerprint == fingerprint and now < self.failure.until

    @property
    def awaits_retry(self) -> bool:
        """Whether the failed hook is retried without a change of the resource."""
        return self.failure is not None and not self.failure.is_final

    def clear(self, reason: str) -> None:
        """Forget a failure for this reason."""
        if self.failure is not None and self.failure.reason == reason:
            self.failure = None


@dataclass(slots=True)
class SubscriptionState(HookState):
    """The state of one subscription name. `applied`: the subscription of the last successful `subscribe`, or None."""

    applied: Subscription | None = None
    fingerprint: Fingerprint = ()


@dataclass(slots=True)
class ChannelState(HookState):
    """The state of one channel name. `applied` is the channel of the last hook calls."""

    applied: Channel | None = None
    provisioned: Fingerprint | None = None  # None: `provision` has not succeeded in this process
    in_force: ResolvedParameters | None = None  # last parameters of `receive`; None: never known in this process
    subscriptions: dict[str, SubscriptionState] = field(default_factory=dict)  # by name
    deleted_since: float | None = None
    reach_again: float | None = None  # when to call `ensure_reachable` again
    ended: set[str] = field(default_factory=set)  # uids whose unprovision or unsubscribe has succeeded

    @property
    def uid(self) -> str:
        return self.applied.uid if self.applied is not None else ""

    def of(self, subscription: str) -> SubscriptionState:
        """The state of a subscription's name; created if missing."""
        return self.subscriptions.setdefault(subscription, SubscriptionState())

    def applied_subscriptions(self) -> dict[str, Subscription]:
        """The subscriptions whose `subscribe` has succeeded, by name."""
        return {name: state.applied for name, state in self.subscriptions.items() if state.applied is not None}

    def reset(self) -> None:
        """Forget the ended channel. A later channel of the same name starts anew."""
        self.applied = self.provisioned = self.in_force = self.deleted_since = self.reach_again = self.failure = None

    def forget_absent(self, present: set[str]) -> None:
        """Forget the subscriptions that no longer exist and are not applied."""
        for name in [name for name, state in self.subscriptions.items() if state.applied is None]:
            if name not in present:
                del self.subscriptions[name]

    @property
    def is_empty(self) -> bool:
        return not (self.applied or self.failure or self.subscriptions or self.ended) and self.deleted_since is None

    def summary(self, now: float, grace: float) -> tuple[Result, float | None]:
        """The worst result, and the seconds until the next reconcile (None: at the next change)."""
        order: tuple[Result, ...] = ("ok", "permanent", "temporary", "error")
        states = (self, *self.subscriptions.values())
        failures = [state.failure for state in states if state.failure is not None]
        worst: Result = max((failure.result for failure in failures), key=order.index, default="ok")
        moments = [failure.until for failure in failures if not failure.is_final]
        if self.deleted_since is not None and now < self.deleted_since + grace:
            moments.append(self.deleted_since + grace)
        if self.reach_again is not None:
            moments.append(self.reach_again)
        return worst, (max(min(moments) - now, 0.0) if moments else None)


def frozen(parameters: ResolvedParameters) -> Fingerprint:
    """Parameters as a part of a fingerprint."""
    return tuple(sorted(parameters.items()))
