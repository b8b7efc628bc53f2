"""Control plane, CRDs: the CustomResourceDefinitions. API server and local manifests share their schemas."""

from __future__ import annotations

import functools
from importlib import resources
from typing import Any

import yaml

from bus_core.model.resources import Kind

_FILES = ("bus.yaml", "clusterbus.yaml", "channel.yaml", "subscription.yaml")


_HEAD = (
    "# For kubectl apply. Deleting these definitions deletes every Bus, ClusterBus, Channel and Subscription of the\n"
    "# cluster. To remove one bus, delete what `bus manifests` prints.\n"
)


def text() -> str:
    """All four as one YAML stream, for `kubectl apply -f -`."""
    folder = resources.files(__name__)
    return _HEAD + "---\n".join((folder / name).read_text(encoding="utf-8") for name in _FILES)


def names_text() -> str:
    """The names of all four as one YAML stream, for `kubectl delete -f -`.

    Deleting a definition deletes every object of that kind in the cluster. `kubectl apply` refuses this stream, which
    has no `spec`.
    """
    return yaml.safe_dump_all(
        [
            {"apiVersion": definition["apiVersion"], "kind": definition["kind"], "metadata": definition["metadata"]}
            for definition in definitions()
        ],
        sort_keys=False,
    )


@functools.cache
def definitions() -> tuple[dict[str, Any], ...]:
    """The four CustomResourceDefinitions. The objects are cached: do not change them."""
    return tuple(yaml.safe_load_all(text()))


@functools.cache
def schemas() -> dict[Kind, dict[str, Any]]:
    """The OpenAPI v3 schema of each kind, as the API server gets it. The schemas are cached: do not change them."""
    return {
        definition["spec"]["names"]["kind"]: definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
        for definition in definitions()
    }
