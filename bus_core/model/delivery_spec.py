"""The delivery part of channels and subscriptions (Knative's DeliverySpec), and its defaults."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, Self

from pydantic import TypeAdapter

_duration = TypeAdapter(dt.timedelta)


@dataclass(frozen=True, slots=True)
class DeliverySpec:
    """How delivery is tried and where it gives up. Durations are seconds; None means that the field is not set."""

    retry: int | None = None
    backoff_policy: Literal["linear", "exponential"] | None = None
    backoff_delay: float | None = None
    timeout: float | None = None
    retry_after_max: float | None = None
    dead_letter_sink: str | None = None

    @classmethod
    def from_object(cls, data: Mapping[str, Any] | None) -> Self:
        data = data or {}
        return cls(
            retry=data.get("retry"),
            backoff_policy=data.get("backoffPolicy"),
            backoff_delay=_seconds(data.get("backoffDelay")),
            timeout=_seconds(data.get("timeout")),
            retry_after_max=_seconds(data.get("retryAfterMax")),
            dead_letter_sink=data.get("deadLetterSink"),
        )

    def over(self, other: DeliverySpec) -> DeliverySpec:
        """This spec, with its unset fields taken from `other`."""
        mine = {f.name: getattr(self, f.name) for f in fields(self)}
        return replace(other, **{name: value for name, value in mine.items() if value is not None})


DELIVERY_DEFAULTS = DeliverySpec(
    retry=5, backoff_policy="exponential", backoff_delay=0.2, timeout=30.0, retry_after_max=60.0, dead_letter_sink=None
)


def _seconds(duration: str | None) -> float | None:
    """ISO 8601 duration, such as PT0.2S, in seconds."""
    return None if duration is None else _duration.validate_python(duration).total_seconds()
