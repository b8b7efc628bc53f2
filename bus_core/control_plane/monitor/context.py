"""Monitor: the context of every reconcile. Hooks, source, roles, clock, and the handling of a failure."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from random import random

from bus_core.control_plane.leadership import Leadership
from bus_core.control_plane.monitor.applied_state import Failure, Fingerprint, HookState
from bus_core.control_plane.monitor.cache import Cache
from bus_core.control_plane.monitor.handler import Hooks
from bus_core.control_plane.monitor.hook_attempt import HookAttempt
from bus_core.control_plane.monitor.parameter_checks import ignored_arguments
from bus_core.control_plane.sources import Source
from bus_core.model.errors import ForbiddenError, ParameterError
from bus_core.model.parameters import ParameterScope, ResolvedParameters, resolve_parameters
from bus_core.model.resources import AnyBus, Channel, Resource, Role, Subscription

SYNCED = "Synced"
ERR_RESOURCE_SYNC = "ErrResourceSync"


@dataclass(frozen=True, slots=True)
class ReconcileContext:
    """One context for all reconciles of a monitor. Thread-safe.

    Args:
        deletion_grace: seconds from refusing a deleted channel's events to unprovisioning the channel.
        clock: seconds, monotonic.
        jitter: in [0, 1).
    """

    hooks: Hooks
    cache: Cache
    source: Source
    leadership: Leadership
    roles: Collection[Role]
    deletion_grace: float
    clock: Callable[[], float] = time.monotonic
    jitter: Callable[[], float] = random

    @property
    def finalizer(self) -> str:
        return f"bus-core/{self.cache.reference.name}"

    def leads(self, role: Role) -> bool:
        """Whether this process has a role and leads it now."""
        return role in self.roles and self.leadership.held(role)

    def attempt(self, hook: str, resource: Resource, fingerprint: Fingerprint, state: HookState) -> HookAttempt:
        """A context manager for the call of a hook. Pass it to `settle` afterwards."""
        name = resource.name if not resource.namespace else f"{resource.namespace}/{resource.name}"
        return HookAttempt(f"{hook} {name}", fingerprint, state.failure, self.clock, self.jitter)

    def settle(self, attempt: HookAttempt, resource: Resource, state: HookState) -> bool:
        """Store the result of a hook. Returns whether the hook succeeded."""
        if attempt.failure is None:
            state.failure = None
            return True
        self.fail(state, attempt.failure, resource, f"{attempt.hook}: {attempt.failure.message}")
        return False

    def fail(self, state: HookState, failure: Failure, resource: Resource, note: str) -> None:
        """Store a failure for the conditions. Record an Event if the failure is new."""
        before, state.failure = state.failure, failure
        if before is None or before.message != failure.message:
            self.source.record_event(resource, ERR_RESOURCE_SYNC, note, warning=True)

    def ensure_finalizer(self, resource: Channel | Subscription, state: HookState, fingerprint: Fingerprint) -> bool:
        """Add our finalizer to a resource. If that is forbidden, store the failure and return False."""
        try:
            self.source.add_finalizer(resource, self.finalizer)
        except ForbiddenError as error:
            until = self.clock() + error.retry_after
            failure = Failure(fingerprint, "temporary", "Forbidden", str(error), until)
            self.fail(state, failure, resource, str(error))
            return False
        state.clear("Forbidden")
        return True

    def resolve(
        self, scope: ParameterScope, bus: AnyBus, resource: Channel | Subscription, state: HookState
    ) -> ResolvedParameters | None:
        """The parameters of a resource. If one has no value, store the failure and return None."""
        try:
            resolved, _ = resolve_parameters(
                scope, self.hooks.declared, bus.spec.parameters, arguments=resource.spec.arguments
            )
        except ParameterError as error:
            fingerprint: Fingerprint = (resource.uid, "parameters", str(error))
            failure = Failure(fingerprint, "permanent", "MissingParameter", str(error), math.inf)
            if state.failure is None or state.failure.fingerprint != fingerprint:
                self.fail(state, failure, resource, str(error))
            return None
        state.clear("MissingParameter")
        return resolved

    def ignored(self, resource: Channel | Subscription) -> str:
        """A sentence on the undeclared arguments of a resource; empty if there are none."""
        return ignored_arguments(self.hooks.declared, self.cache.bus, resource)

    def warn_of_ignored(self, resource: Channel | Subscription) -> None:
        """Record an Event for undeclared arguments, unless the conditions already mention them."""
        note = self.ignored(resource)
        said = resource.condition("Ready")
        if note and (said is None or said.message != note):  # else an earlier process has recorded it
            self.source.record_event(resource, ERR_RESOURCE_SYNC, f"arguments are {note}", warning=True)
