"""The kinds of today's Knative that have names of ours, in short: what a cluster has where both are installed."""

from __future__ import annotations

from typing import Any

import yaml

from tests.e2e.cluster.server import ApiServer
from tests.support import wait_for

NEIGHBOURS = {
    # kind, group: plural and short names, as Knative Eventing and Serving register them
    ("Channel", "messaging.knative.dev"): ("channels", ["ch"]),
    ("Subscription", "messaging.knative.dev"): ("subscriptions", ["sub"]),
    ("Service", "serving.knative.dev"): ("services", ["kservice", "ksvc"]),
}


def definition(kind: str, group: str, plural: str, short: list[str]) -> dict[str, Any]:
    """A CustomResourceDefinition that takes any object."""
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    names = {
        "kind": kind,
        "plural": plural,
        "singular": kind.lower(),
        "shortNames": short,
        "categories": ["all", "knative"],
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{group}"},
        "spec": {
            "group": group,
            "scope": "Namespaced",
            "names": names,
            "versions": [{"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}],
        },
    }


def install_neighbours(server: ApiServer) -> None:
    """Install them, and wait until they are served."""
    items = [definition(kind, group, *names) for (kind, group), names in NEIGHBOURS.items()]
    server.kubectl("apply", "-f", "-", stdin=yaml.safe_dump_all(items))
    for item in items:
        full = item["metadata"]["name"]
        wait_for(lambda full=full: "no resources" in server.kubectl("get", full, check=False).lower(), 20, full)  # type: ignore[misc]
