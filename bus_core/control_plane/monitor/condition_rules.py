"""Monitor: the conditions of a channel and a subscription, from results of hooks and reports. Pure functions."""

from __future__ import annotations

from collections.abc import Sequence

from bus_core.control_plane.monitor.applied_state import Failure
from bus_core.model.conditions import Condition


def channel_conditions(
    failure: Failure | None, *, works: bool, note: str, reached: Sequence[Condition]
) -> list[Condition]:
    """Of a channel whose turn has come.

    Args:
        failure: of `provision`, or of what has to come before it.
        works: whether it was provisioned before: then it goes on as it was.
        note: what its owner should know although all is well.
        reached: whether it can be reached by its name (see `bus_core.control_plane.sources.Source.reach`).
    """
    if failure is None:
        provisioned = Condition("Provisioned", "True", "Provisioned", note)
        ready = Condition("Ready", "True", "Provisioned", note)
    else:
        # Dispatchers read Provisioned, people read Ready.
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
    """Of a subscription whose turn has come.

    Args:
        failure: of `subscribe`, or of what has to come before it.
        reported: reason and message of what holds it up although it is subscribed.
        note: what its owner should know although all is well.
    """
    if failure is not None:
        dispatching = Condition("Dispatching", "False", failure.reason, failure.message)
    elif reported is not None:
        dispatching = Condition("Dispatching", "False", *reported)
    else:
        dispatching = Condition("Dispatching", "True", "Dispatching", note)
    return [dispatching, Condition("Ready", dispatching.status, dispatching.reason, dispatching.message)]
