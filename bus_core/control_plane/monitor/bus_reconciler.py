"""Monitor: the reconciler of the Bus itself. It calls `sync_bus` and writes the Bus's conditions."""

from __future__ import annotations

import contextlib

from bus_core.control_plane.monitor.applied_state import Failure, Fingerprint, HookState
from bus_core.control_plane.monitor.context import ReconcileContext
from bus_core.model.conditions import Condition
from bus_core.model.errors import TemporaryError
from bus_core.model.resources import DISPATCHER, PROVISIONER, AnyBus, Role

_KINDS: tuple[tuple[Role, str], ...] = ((PROVISIONER, "Provisioning"), (DISPATCHER, "Dispatching"))


class BusReconciler:
    """Level-based, like the `Reconciler` of channels. `apply` is called by one thread at a time."""

    def __init__(self, context: ReconcileContext) -> None:
        self._context = context
        self._state = HookState()
        self._applied: Fingerprint | None = None

    @property
    def is_applied(self) -> bool:
        """Whether `sync_bus` has been called: it comes before every other hook."""
        return self._applied is not None

    @property
    def failure(self) -> Failure | None:
        """Why `sync_bus` failed, if it did."""
        return self._state.failure

    def retry_after(self) -> float | None:
        """Seconds until `sync_bus` is retried; None: only when the Bus changes."""
        failure = self._state.failure
        if failure is None or failure.is_final:
            return None
        return max(failure.until - self._context.clock(), 0.0)

    def apply(self, bus: AnyBus) -> bool:
        """Call `sync_bus` if the Bus has changed or a retry is due. Returns whether it was called.

        A failure is retried with back-off. The channels continue meanwhile: a Bus that the driver rejects must not
        stop channels that work.
        """
        context, state = self._context, self._state
        fingerprint: Fingerprint = (bus.uid, bus.spec)
        retry = state.failure is not None and context.clock() >= state.failure.until
        if self._applied == fingerprint and not retry:
            return False
        with context.attempt("sync_bus", bus, fingerprint, state) as attempt:
            context.hooks.sync_bus(bus)
        if attempt.failure is None:
            state.failure = None
        else:
            context.fail(state, attempt.failure, bus, attempt.failure.message)
        self._applied = fingerprint
        return True

    def write_conditions(self, bus: AnyBus, problems: list[str]) -> None:
        """Write the conditions of the roles that this process leads, and `Ready` from the conditions of all roles.

        Args:
            problems: problems of this process other than a rejected Bus.

        Raises:
            TemporaryError: the source refused the write.
        """
        context, failure = self._context, self._state.failure
        mine: list[Condition] = []
        for role, kind in _KINDS:
            if not context.leads(role):
                continue
            if failure is not None:
                mine.append(Condition(kind, "False", failure.reason, failure.message))
            elif problems:
                mine.append(Condition(kind, "False", "NotInStep", "; ".join(problems)))
            else:
                mine.append(Condition(kind, "True", "Running"))
        if not mine:
            return
        if context.leads(PROVISIONER):
            mine += context.source.ensure_reachable(bus)
        known = {condition.type: condition for condition in (*bus.conditions, *mine)}
        parts = [known.get(kind) for kind in ("Serviceable", "Provisioning", "Dispatching")]
        bad = next((part for part in parts if part is not None and part.status == "False"), None)
        if bad is not None:
            ready = Condition("Ready", "False", bad.reason, bad.message)
        elif all(parts):
            ready = Condition("Ready", "True", "Running")
        else:
            ready = Condition("Ready", "Unknown", "RoleMissing", "no process provisions or none dispatches")
        context.source.write_conditions(bus, [*mine, ready])

    def write_not_in_step(self, bus: AnyBus, problems: list[str]) -> None:
        """Write only that the Bus is not ready. Needs no leadership: there may be no leader to write it."""
        with contextlib.suppress(TemporaryError):
            text = "; ".join(problems)
            self._context.source.write_conditions(bus, [Condition("Ready", "False", "NotInStep", text)])
