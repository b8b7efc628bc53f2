"""Cluster: the paths of the API server that a bus uses."""

from __future__ import annotations

from dataclasses import dataclass

from bus_core.model.resources import GROUP, VERSION


@dataclass(frozen=True, slots=True)
class Api:
    """One resource of the API. A path without a namespace is for all namespaces, or for a cluster-scoped resource."""

    group: str
    version: str
    resource: str

    def path(self, namespace: str = "", name: str = "", subresource: str = "") -> str:
        root = f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"
        parts = [root, f"namespaces/{namespace}" if namespace else "", self.resource, name, subresource]
        return "/".join(part for part in parts if part)

    def __str__(self) -> str:
        return f"{self.resource}.{self.group}" if self.group else self.resource


BUSES = Api(GROUP, VERSION, "buses")
CLUSTER_BUSES = Api(GROUP, VERSION, "clusterbuses")
CHANNELS = Api(GROUP, VERSION, "channels")
SUBSCRIPTIONS = Api(GROUP, VERSION, "subscriptions")
SERVICES = Api("", "v1", "services")
EVENTS = Api("events.k8s.io", "v1", "events")
LEASES = Api("coordination.k8s.io", "v1", "leases")
