"""Model: the resources that a bus reads. Bus, ClusterBus, Channel, Subscription.

They are immutable views of `channels.knative.dev/v1alpha1` objects from a folder or a cluster. The CRD schema has
already accepted these objects, so `from_object` does not validate them. Their specs are in `bus_core.model.specs`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, Self

from bus_core.model.conditions import Condition
from bus_core.model.parameters import ResolvedParameters
from bus_core.model.references import DEFAULT_NAMESPACE, BusReference, ChannelReference, SubscriptionReference
from bus_core.model.specs import (
    DELIVERY_DEFAULTS,
    BusSpec,
    ChannelSpec,
    DeliverySpec,
    SubscriptionSpec,
    read_arguments,
)

__all__ = [
    "API_VERSION",
    "DELIVERY_DEFAULTS",
    "DISPATCHER",
    "GROUP",
    "PROVISIONER",
    "VERSION",
    "AnyBus",
    "Bus",
    "BusSpec",
    "Channel",
    "ChannelSpec",
    "ClusterBus",
    "DeliverySpec",
    "Kind",
    "Metadata",
    "Resource",
    "ResourceKey",
    "Role",
    "Subscription",
    "SubscriptionSpec",
    "effective_delivery",
    "from_object",
    "parameters_to_object",
]

GROUP = "channels.knative.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"

DISPATCHER: Final = "dispatcher"
PROVISIONER: Final = "provisioner"
Role = Literal["dispatcher", "provisioner"]

Kind = Literal["Bus", "ClusterBus", "Channel", "Subscription"]


@dataclass(frozen=True, slots=True)
class ResourceKey:
    """Kind, namespace and name of a resource. The namespace of a ClusterBus is empty."""

    kind: Kind
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}" if self.namespace else f"{self.kind} {self.name}"


# wide: each field is one of the API's ObjectMeta
@dataclass(frozen=True, slots=True)
class Metadata:
    """The part of ObjectMeta that a bus uses. `deleted`: a deletionTimestamp is set."""

    name: str
    namespace: str = DEFAULT_NAMESPACE
    uid: str = ""
    generation: int = 1
    resource_version: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    finalizers: tuple[str, ...] = ()
    deleted: bool = False

    @classmethod
    def from_object(cls, meta: Mapping[str, Any], *, namespaced: bool = True) -> Self:
        return cls(
            name=meta["name"],
            namespace=(meta.get("namespace") or DEFAULT_NAMESPACE) if namespaced else "",
            uid=meta.get("uid") or "",
            generation=int(meta.get("generation") or 1),
            resource_version=meta.get("resourceVersion") or "",
            labels=dict(meta.get("labels") or {}),
            annotations=dict(meta.get("annotations") or {}),
            finalizers=tuple(meta.get("finalizers") or ()),
            deleted=bool(meta.get("deletionTimestamp")),
        )


@dataclass(frozen=True, slots=True)
class _Resource:
    """What the four kinds have in common."""

    metadata: Metadata
    conditions: tuple[Condition, ...] = field(default=(), kw_only=True)
    observed_generation: int = field(default=0, kw_only=True)
    provisioned_parameters: ResolvedParameters | None = field(default=None, kw_only=True)
    """Of a Channel: the parameters of the last successful `provision`; None if the status has none."""

    @property
    def name(self) -> str:
        return self.metadata.name

    @property
    def namespace(self) -> str:
        return self.metadata.namespace

    @property
    def uid(self) -> str:
        return self.metadata.uid

    @property
    def deleted(self) -> bool:
        return self.metadata.deleted

    def condition(self, type_: str) -> Condition | None:
        return next((condition for condition in self.conditions if condition.type == type_), None)

    def is_true(self, type_: str) -> bool:
        condition = self.condition(type_)
        return condition is not None and condition.status == "True"

    def shows(self, type_: str) -> bool:
        """Whether a condition is true and was written for the current generation of the resource."""
        return self.is_true(type_) and self.observed_generation == self.metadata.generation


@dataclass(frozen=True, slots=True)
class Bus(_Resource):
    """A bus for the channels of its own namespace that name it."""

    spec: BusSpec = field(kw_only=True, default=BusSpec())
    kind: Kind = field(default="Bus", init=False)

    @property
    def key(self) -> ResourceKey:
        return ResourceKey(self.kind, self.namespace, self.name)

    @property
    def reference(self) -> BusReference:
        return BusReference(self.name, self.namespace)


@dataclass(frozen=True, slots=True)
class ClusterBus(_Resource):
    """A bus for channels of any namespace."""

    spec: BusSpec = field(kw_only=True, default=BusSpec())
    kind: Kind = field(default="ClusterBus", init=False)

    @property
    def key(self) -> ResourceKey:
        return ResourceKey(self.kind, "", self.name)

    @property
    def reference(self) -> BusReference:
        return BusReference(self.name)


@dataclass(frozen=True, slots=True)
class Channel(_Resource):
    """A named place to send events to, backed by one bus."""

    spec: ChannelSpec = field(kw_only=True)
    kind: Kind = field(default="Channel", init=False)

    @property
    def key(self) -> ResourceKey:
        return ResourceKey(self.kind, self.namespace, self.name)

    @property
    def reference(self) -> ChannelReference:
        return ChannelReference(self.name, self.namespace)

    @property
    def bus(self) -> BusReference:
        """The bus that backs this channel."""
        return (
            BusReference(self.spec.cluster_bus)
            if self.spec.cluster_bus
            else BusReference(self.spec.bus, self.namespace)
        )


@dataclass(frozen=True, slots=True)
class Subscription(_Resource):
    """Sends every event of a channel to a subscriber."""

    spec: SubscriptionSpec = field(kw_only=True)
    kind: Kind = field(default="Subscription", init=False)

    @property
    def key(self) -> ResourceKey:
        return ResourceKey(self.kind, self.namespace, self.name)

    @property
    def reference(self) -> SubscriptionReference:
        return SubscriptionReference(self.name, self.namespace)

    @property
    def channel(self) -> ChannelReference:
        return ChannelReference(self.spec.channel, self.namespace)


def effective_delivery(subscription: Subscription, channel: Channel) -> DeliverySpec:
    """For each field: the subscription's value, else the channel's, else the default."""
    return subscription.spec.delivery.over(channel.spec.delivery).over(DELIVERY_DEFAULTS)


AnyBus = Bus | ClusterBus
Resource = Bus | ClusterBus | Channel | Subscription


def from_object(data: Mapping[str, Any]) -> Resource:
    """Read one object of this API group, in the form of a manifest or of the API server.

    Raises:
        KeyError: the kind is unknown, or a required field is missing. The schema rules out both.
    """
    kind = data["kind"]
    meta = Metadata.from_object(data["metadata"], namespaced=kind != "ClusterBus")
    status = data.get("status") or {}
    conditions = tuple(Condition.from_object(item) for item in status.get("conditions") or ())
    observed = int(status.get("observedGeneration") or 0)
    spec = data.get("spec") or {}
    if kind == "Channel":
        stored = status.get("provisionedParameters")
        return Channel(
            meta,
            spec=ChannelSpec.from_object(spec),
            conditions=conditions,
            observed_generation=observed,
            provisioned_parameters=None if stored is None else read_arguments(stored),
        )
    if kind == "Subscription":
        return Subscription(
            meta, spec=SubscriptionSpec.from_object(spec), conditions=conditions, observed_generation=observed
        )
    if kind == "Bus":
        return Bus(meta, spec=BusSpec.from_object(spec), conditions=conditions, observed_generation=observed)
    if kind == "ClusterBus":
        return ClusterBus(meta, spec=BusSpec.from_object(spec), conditions=conditions, observed_generation=observed)
    raise KeyError(kind)


def parameters_to_object(parameters: ResolvedParameters) -> list[dict[str, str]]:
    """Parameters in the API's form: a list of names and values, sorted by name."""
    return [{"name": name, "value": value} for name, value in sorted(parameters.items())]
