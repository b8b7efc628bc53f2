"""Deploy: the objects that one bus needs in a cluster, made from the kustomize base.

The kinds (CustomResourceDefinitions) are in `bus_core.control_plane.crds`. All buses of a cluster share the kinds, so
deleting the objects of one bus must not delete a kind.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib import resources
from typing import Any

import yaml

Object = dict[str, Any]

_FILES = ("account.yaml", "workload.yaml")
_BUS, _NAMESPACE = "demo", "default"  # the names in the base


def objects(*, bus: str, namespace: str, driver: str, image: str, cluster: bool = False) -> Iterator[Object]:
    """Every object of one bus, except the Bus and the kinds.

    Args:
        bus: its name. namespace: of the Bus and its pods. driver: an entry point's name. image: of the pods.
        cluster: whether the bus is a ClusterBus, which needs permissions in all namespaces.
    """
    folder = resources.files(__name__)
    for name in _FILES:
        for item in yaml.safe_load_all((folder / name).read_text(encoding="utf-8")):
            made = _made_out(item, bus, namespace)
            if made["kind"] == "Deployment":
                _set_pods(made, driver, image, cluster=cluster)
            if cluster and made["kind"] in ("Role", "RoleBinding"):
                yield from _widened(made, bus, namespace)
            else:
                yield made


def text(**what: Any) -> str:
    """`objects` as one YAML stream, for `kubectl apply -f -` and `kubectl delete -f -`."""
    return yaml.safe_dump_all(objects(**what), sort_keys=False, width=120)


def _made_out(value: Any, bus: str, namespace: str) -> Any:
    """The base with the names of this bus."""
    if isinstance(value, dict):
        return {key: _made_out(inner, bus, namespace) for key, inner in value.items()}
    if isinstance(value, list):
        return [_made_out(inner, bus, namespace) for inner in value]
    names = {_BUS: bus, f"{_BUS}-bus": f"{bus}-bus", _NAMESPACE: namespace}
    return names.get(value, value) if isinstance(value, str) else value


def _set_pods(deployment: Object, driver: str, image: str, *, cluster: bool) -> None:
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    container["image"] = image
    if cluster:
        container["env"] = [entry for entry in container["env"] if entry["name"] != "BUS_NAMESPACE"]
    for entry in container["env"]:
        if entry["name"] == "BUS_DRIVER":
            entry["value"] = driver


def _widened(item: Object, bus: str, namespace: str) -> Iterator[Object]:
    """For a ClusterBus: permissions in all namespaces; those for Leases only in the pods' namespace."""
    meta = {**item["metadata"], "name": f"{namespace}-{bus}-bus"}
    del meta["namespace"]
    if item["kind"] == "RoleBinding":
        yield {**item, "kind": "ClusterRoleBinding", "metadata": meta} | {
            "roleRef": {**item["roleRef"], "kind": "ClusterRole", "name": meta["name"]}
        }
        yield item
        return
    leases = [rule for rule in item["rules"] if "leases" in rule["resources"]]
    others = [rule for rule in item["rules"] if "leases" not in rule["resources"]]
    renamed = [
        {**rule, "resources": [name.replace("buses", "clusterbuses") for name in rule["resources"]]} for rule in others
    ]
    yield {**item, "kind": "ClusterRole", "metadata": meta, "rules": renamed}
    yield {**item, "rules": leases}
