"""Model: the spec of each kind of resource, as immutable values.

Each `from_object` reads the `spec` of an object that the CRD schema has already accepted. It does not validate.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, Self

from pydantic import TypeAdapter

from bus_core.model.parameters import Parameter, ParameterScope

_duration = TypeAdapter(dt.timedelta)


@dataclass(frozen=True, slots=True)
class DeliverySpec:
    """Retries, timeout and dead-letter sink (Knative's DeliverySpec). Durations in seconds; None: not set."""

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
        """A copy of this spec in which `other` fills the fields that are None."""
        mine = {f.name: getattr(self, f.name) for f in fields(self)}
        return replace(other, **{name: value for name, value in mine.items() if value is not None})


DELIVERY_DEFAULTS = DeliverySpec(
    retry=5, backoff_policy="exponential", backoff_delay=0.2, timeout=30.0, retry_after_max=60.0, dead_letter_sink=None
)


@dataclass(frozen=True, slots=True)
class BusSpec:
    """`driver` is an entry-point name; empty if the command line chooses the driver."""

    driver: str = ""
    parameters: tuple[Parameter, ...] = ()

    @classmethod
    def from_object(cls, data: Mapping[str, Any] | None) -> Self:
        data = data or {}
        declared: list[Parameter] = []
        scopes: tuple[ParameterScope, ...] = ("channel", "subscription")
        for scope in scopes:
            for item in (data.get("parameters") or {}).get(scope) or ():
                declared.append(Parameter(item["name"], item.get("description") or "", item.get("default"), scope))
        return cls(driver=data.get("driver") or "", parameters=tuple(declared))


@dataclass(frozen=True, slots=True)
class ChannelSpec:
    """Exactly one of `bus` and `cluster_bus` is set."""

    bus: str = ""
    cluster_bus: str = ""
    arguments: Mapping[str, str] = field(default_factory=dict)
    delivery: DeliverySpec = DeliverySpec()

    @classmethod
    def from_object(cls, data: Mapping[str, Any]) -> Self:
        return cls(
            bus=data.get("bus") or "",
            cluster_bus=data.get("clusterBus") or "",
            arguments=read_arguments(data.get("arguments")),
            delivery=DeliverySpec.from_object(data.get("delivery")),
        )


@dataclass(frozen=True, slots=True)
class SubscriptionSpec:
    """`channel` is a name in the subscription's own namespace; `subscriber` and `reply_to` are destinations."""

    channel: str
    subscriber: str = ""
    reply_to: str = ""
    arguments: Mapping[str, str] = field(default_factory=dict)
    delivery: DeliverySpec = DeliverySpec()

    @classmethod
    def from_object(cls, data: Mapping[str, Any]) -> Self:
        return cls(
            channel=data["channel"],
            subscriber=data.get("subscriber") or "",
            reply_to=data.get("replyTo") or "",
            arguments=read_arguments(data.get("arguments")),
            delivery=DeliverySpec.from_object(data.get("delivery")),
        )


def _seconds(duration: str | None) -> float | None:
    """Read an ISO 8601 duration, such as PT0.2S, as seconds."""
    return None if duration is None else _duration.validate_python(duration).total_seconds()


def read_arguments(data: Any) -> dict[str, str]:
    """Read arguments in the API's form: a list of names and values."""
    return {item["name"]: item["value"] for item in data or ()}
