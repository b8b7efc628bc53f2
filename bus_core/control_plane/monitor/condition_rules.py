"""Monitor: the conditions of a channel and a subscription, from results of hooks and reports. Pure functions."""

from __future__ import annotations

from collections.abc import Sequence

from bus_core.control_plane.monitor.applied_state import Failure
from bus_core.model.conditions import Condition


def channel_conditions(
    failure: Failure | None, *, works: bool, note: str, reached: Sequence[Condition]
) -> list[Condition]:
    """The conditions of a channel for which `provision` was tried.

    Args:
        failure: the failure of `provision` or of a step before it.
        works: whether an earlier `provision` succeeded, so that the channel still works.
        note: a message for the channel's owner if there is no failure.
        reached: the result of `bus_core.control_plane.sources.Source.ensure_reachable`.
    """
    if failure is None:
        provisioned = Condition("Provisioned", "True", "Provisioned", note)
        ready = Condition("Ready", "True", "Provisioned", note)
    else:
        # Dispatchers read Provisioned; people read Ready.
        provisioned = Condition(
            "Provisioned",
            "True" if works else "False",
            "UpdateFailed" if works else failure.reason,
            failure.message,
        )
        ready = Condition("Ready", "False", failure.reason, failure.message)
    unreached = next((condition for condition in reached if condition.status == "False"), None)
    if ready.status == "True" and unreached is not None:
        ready = Condition("Ready", "False", unreached.reason, unreached.message)
    return [provisioned, *reached, ready]


def subscription_conditions(failure: Failure | None, reported: tuple[str, str] | None, *, note: str) -> list[Condition]:
    """The conditions of a subscription for which `subscribe` was tried.

    Args:
        failure: the failure of `subscribe` or of a step before it.
        reported: reason and message of a problem that was reported after `subscribe` succeeded.
        note: a message for the subscription's owner if there is no problem.
    """
    if failure is not None:
        dispatching = Condition("Dispatching", "False", failure.reason, failure.message)
    elif reported is not None:
        dispatching = Condition("Dispatching", "False", *reported)
    else:
        dispatching = Condition("Dispatching", "True", "Dispatching", note)
    return [dispatching, Condition("Ready", dispatching.status, dispatching.reason, dispatching.message)]
