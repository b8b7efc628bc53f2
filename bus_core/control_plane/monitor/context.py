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
    """Shared by all reconciles of one monitor. Thread-safe.

    Args:
        deletion_grace: seconds between refusing a deleted channel's events and unprovisioning it.
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
        """Whether this process plays a role, and leads it at this moment."""
        return role in self.roles and self.leadership.held(role)

    def attempt(self, hook: str, resource: Resource, fingerprint: Fingerprint, state: HookState) -> HookAttempt:
        """Around the call of a hook; `settle` it afterwards."""
        name = resource.name if not resource.namespace else f"{resource.namespace}/{resource.name}"
        return HookAttempt(f"{hook} {name}", fingerprint, state.failure, self.clock, self.jitter)

    def settle(self, attempt: HookAttempt, resource: Resource, state: HookState) -> bool:
        """Keep what became of a hook; whether it succeeded."""
        if attempt.failure is None:
            state.failure = None
            return True
        self.fail(state, attempt.failure, resource, f"{attempt.hook}: {attempt.failure.message}")
        return False

    def fail(self, state: HookState, failure: Failure, resource: Resource, note: str) -> None:
        """Keep a failure for the conditions, with an Event if it is not the one before."""
        before, state.failure = state.failure, failure
        if before is None or before.message != failure.message:
            self.source.record_event(resource, ERR_RESOURCE_SYNC, note, warning=True)

    def ensure_finalizer(self, resource: Channel | Subscription, state: HookState, fingerprint: Fingerprint) -> bool:
        """Put our finalizer on a resource; False where that is not allowed, which its conditions then say."""
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
        """The parameters that a resource asks for; None if one has no value, which its conditions then say."""
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
        """A sentence on the arguments of a resource that nobody declares; empty if there are none."""
        return ignored_arguments(self.hooks.declared, self.cache.bus, resource)

    def warn_of_ignored(self, resource: Channel | Subscription) -> None:
        """Record an Event for arguments that nobody declares, unless the conditions say so already."""
        note = self.ignored(resource)
        said = resource.condition("Ready")
        if note and (said is None or said.message != note):  # else it is only this process that is new
            self.source.record_event(resource, ERR_RESOURCE_SYNC, f"arguments are {note}", warning=True)
