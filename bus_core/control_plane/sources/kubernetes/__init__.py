"""Source: resources in a cluster. Watched there; status, finalizers, Services and Events are written."""

from __future__ import annotations

from bus_core.control_plane.sources.kubernetes.services import ServiceName
from bus_core.control_plane.sources.kubernetes.source import KubernetesSource, read_bus

__all__ = ["KubernetesSource", "ServiceName", "read_bus"]
