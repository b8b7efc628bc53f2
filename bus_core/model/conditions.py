"""Model: the conditions in the status of a resource, and how new conditions are merged with old ones."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Self

ConditionStatus = Literal["True", "False", "Unknown"]


@dataclass(frozen=True, slots=True)
class Condition:
    """One entry of `status.conditions`; `last_transition_time` is RFC 3339 and changes only when `status` does."""

    type: str
    status: ConditionStatus
    reason: str = ""
    message: str = ""
    last_transition_time: str = ""

    @classmethod
    def from_object(cls, data: Mapping[str, Any]) -> Self:
        return cls(
            type=data["type"],
            status=data["status"],
            reason=data.get("reason") or "",
            message=data.get("message") or "",
            last_transition_time=data.get("lastTransitionTime") or "",
        )

    def to_object(self) -> dict[str, str]:
        data = {
            "type": self.type,
            "status": self.status,
            "reason": self.reason,
            "message": self.message,
            "lastTransitionTime": self.last_transition_time,
        }
        return {name: value for name, value in data.items() if value}


def merge_conditions(old: Sequence[Condition], new: Sequence[Condition], now: dt.datetime) -> tuple[Condition, ...]:
    """Replace old conditions with new ones of the same type. A transition time changes only with the status."""
    known = {condition.type: condition for condition in old}
    for condition in new:
        before = known.get(condition.type)
        if before is not None and before.status == condition.status:
            stamp = before.last_transition_time
        else:
            stamp = now.astimezone(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        known[condition.type] = replace(condition, last_transition_time=stamp)
    return tuple(known.values())
