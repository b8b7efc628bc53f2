"""Source: a Service for each channel. Its DNS name, which senders use, leads to the bus's own Service."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any

from bus_core.control_plane.cluster import SERVICES, ApiError, ClusterClient
from bus_core.model.conditions import Condition
from bus_core.model.references import CHANNEL_SERVICE_SUFFIX, BusReference, ChannelReference
from bus_core.model.resources import API_VERSION, GROUP, Channel
from bus_core.telemetry import get_logger

LABEL_BUS = f"{GROUP}/bus"
LABEL_CHANNEL = f"{GROUP}/channel"

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class ServiceName:
    name: str
    namespace: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"

    @property
    def host(self) -> str:
        return f"{self.name}.{self.namespace}.svc.cluster.local"


@dataclass(frozen=True, slots=True)
class _Known:
    """The part of a Service that is compared with the wanted state."""

    owner: str
    version: str
    target: str


class Services:
    """Thread-safe. A watch calls `take` and `take_front`; the other methods read their data, and write Services.

    Args:
        front: the Service of the pods that receive events.
    """

    def __init__(self, client: ClusterClient, bus: BusReference, front: ServiceName) -> None:
        self.front = front
        self._client = client
        self._bus = bus
        self._known: dict[ChannelReference, _Known] = {}
        self._has_front = False
        self._said: dict[ChannelReference, str] = {}
        self._lock = threading.Lock()  # guards the known Services and the front

    def is_front(self, item: dict[str, Any]) -> bool:
        """Whether a Service is the bus's own."""
        meta = item["metadata"]
        return (meta["name"], meta.get("namespace") or "") == (self.front.name, self.front.namespace)

    def take(self, event: str, item: dict[str, Any]) -> ChannelReference | None:
        """Store or remove a Service with our label. Returns its channel."""
        meta = item["metadata"]
        reference = ChannelReference(meta["name"].removesuffix(CHANNEL_SERVICE_SUFFIX), meta.get("namespace") or "")
        with self._lock:
            if event == "DELETED":
                return reference if self._known.pop(reference, None) is not None else None
            known = _read(item)
            changed = self._known.get(reference) != known
            self._known[reference] = known
        return reference if changed else None

    def take_front(self, event: str) -> bool:
        """Store or remove the bus's own Service. Returns whether that is a change."""
        with self._lock:
            before, self._has_front = self._has_front, event != "DELETED"
            return before != self._has_front

    def route(self) -> Condition:
        """The conditions of a channel's name: whether the bus's own Service exists."""
        if self._has_front:
            return Condition("Routeable", "True", "ServiceExists")
        return Condition("Routeable", "False", "ServiceNotFound", self._missing)

    def serviceable(self) -> Condition:
        """The same condition for the Bus itself."""
        if self._has_front:
            return Condition("Serviceable", "True", "ServiceExists")
        return Condition("Serviceable", "False", "ServiceNotFound", self._missing)

    def serve(self, channel: Channel) -> Condition:
        """Create or update the channel's Service, if it differs from the wanted state."""
        with self._lock:
            known = self._known.get(channel.reference)
        if known is not None and (known.owner, known.target) == (channel.uid, self.front.host):
            return Condition("Serviceable", "True", "ServiceExists")
        try:
            answer = self._write(channel, known)
        except ApiError as error:
            reason = {403: "Forbidden", 409: "ServiceConflict", 422: "ServiceRefused"}.get(
                error.status, "ServiceFailed"
            )
            text = str(error)
            if error.status == 409 and known is None:
                name = f"{channel.name}{CHANNEL_SERVICE_SUFFIX}"
                text = f"the Service {name} belongs to something else; delete it, or rename it"
            if self._said.get(channel.reference) != text:
                self._said[channel.reference] = text
                log.warning("a channel has no Service", channel=str(channel.reference), reason=reason, detail=text)
            return Condition("Serviceable", "False", reason, text)
        self._said.pop(channel.reference, None)
        with self._lock:
            self._known[channel.reference] = _read(answer)
        return Condition("Serviceable", "True", "ServiceExists")

    def remove(self, channel: Channel) -> None:
        """Delete the channel's Service, if it belongs to this channel.

        The cluster's garbage collector would delete it by its owner reference, but later. A channel that is deleted and
        created again within a second should not find the old Service.
        """
        with self._lock:
            known = self._known.get(channel.reference)
        if known is None or known.owner != channel.uid:
            return
        try:
            self._client.delete(SERVICES.path(channel.namespace, f"{channel.name}{CHANNEL_SERVICE_SUFFIX}"))
        except ApiError as error:
            if error.status != 404:
                log.warning(
                    "a channel's Service could not be deleted", channel=str(channel.reference), detail=str(error)
                )
        self._said.pop(channel.reference, None)
        with self._lock:
            self._known.pop(channel.reference, None)

    def _write(self, channel: Channel, known: _Known | None) -> dict[str, Any]:
        name = f"{channel.name}{CHANNEL_SERVICE_SUFFIX}"
        owner = {
            "apiVersion": API_VERSION,
            "kind": "Channel",
            "name": channel.name,
            "uid": channel.uid,
            "controller": True,
            "blockOwnerDeletion": False,
        }
        wanted: dict[str, Any] = {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {
                "name": name,
                "namespace": channel.namespace,
                "labels": {LABEL_BUS: self._bus.name, LABEL_CHANNEL: channel.name},
                "ownerReferences": [owner],
            },
            "spec": {"type": "ExternalName", "externalName": self.front.host},
        }
        if known is None:
            return self._client.create(SERVICES.path(channel.namespace), wanted)
        wanted["metadata"]["resourceVersion"] = known.version
        return self._client.replace(SERVICES.path(channel.namespace, name), wanted)

    @property
    def _missing(self) -> str:
        return (
            f"there is no Service {self.front} with the label {LABEL_BUS}={self._bus.name}; "
            "apply the manifests that `bus manifests` prints"
        )


def _read(item: dict[str, Any]) -> _Known:
    meta = item["metadata"]
    owner = next((owner["uid"] for owner in meta.get("ownerReferences") or () if owner.get("controller")), "")
    return _Known(owner, meta["resourceVersion"], (item.get("spec") or {}).get("externalName") or "")
