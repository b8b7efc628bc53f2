"""The CustomResourceDefinitions: the one schema, for a cluster's API server and for local manifests."""

from __future__ import annotations

import functools
from importlib import resources
from typing import Any

import yaml

from bus_core.model.resources import Kind

_FILES = ("bus.yaml", "clusterbus.yaml", "channel.yaml", "subscription.yaml")


def text() -> str:
    """All four as one YAML stream, ready for `kubectl apply -f -`."""
    folder = resources.files(__name__)
    return "---\n".join((folder / name).read_text(encoding="utf-8") for name in _FILES)


@functools.cache
def schemas() -> dict[Kind, dict[str, Any]]:
    """The OpenAPI v3 schema of each kind, as the API server gets it."""
    definitions = list(yaml.safe_load_all(text()))
    return {
        definition["spec"]["names"]["kind"]: definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
        for definition in definitions
    }
