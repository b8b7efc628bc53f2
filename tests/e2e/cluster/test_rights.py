"""One right less, one at a time: log and conditions name what is missing, and everything else goes on."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from bus_core import deploy
from tests.e2e.cluster.stage import Stage, basics
from tests.support import manifest, subscriber, wait_for

ROLE = next(
    item for item in deploy.objects(bus="demo", namespace="x", driver="stub", image="i") if item["kind"] == "Role"
)
RIGHTS = [
    (resource, verb)
    for rule in ROLE["rules"]
    for resource in rule["resources"]
    for verb in rule["verbs"]
    # Of these, others do the work once a bus runs with --driver: get reads the Bus where none is given.
    if (resource, verb) != ("buses", "get")
]


def without(resource: str, verb: str) -> list[dict[str, Any]]:
    """The rules with one right taken out."""
    rules = []
    for rule in copy.deepcopy(ROLE["rules"]):
        if resource not in rule["resources"]:
            rules.append(rule)
            continue
        others = [name for name in rule["resources"] if name != resource]
        if others:
            rules.append({**rule, "resources": others})
        kept = [name for name in rule["verbs"] if name != verb]
        if kept:
            rules.append({**rule, "resources": [resource], "verbs": kept})
    return rules


@pytest.mark.parametrize(("resource", "verb"), RIGHTS)
def test_a_missing_right_is_named_and_the_rest_goes_on(stage: Stage, resource: str, verb: str) -> None:
    role = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{stage.namespace}/roles/demo-bus"
    held = stage.api.ask("GET", role)
    with subscriber() as server:
        stage.put(*basics(server.url()))
        if (resource, verb) == ("events", "patch"):
            pytest.skip("it takes a minute until an Event is repeated; the unit test of the recorder covers it")
        needs_change = (resource, verb) in {("services", "update"), ("services", "delete")}
        if needs_change:
            host = stage.start()
            stage.wait_condition("Subscription", "one", "True")
            assert host.stop() == 0
        stage.api.ask("PUT", role, {**held, "rules": without(resource, verb)})
        if (resource, verb) == ("services", "update"):
            path = f"/api/v1/namespaces/{stage.namespace}/services/orders-channel"
            service = stage.api.ask("GET", path)
            stage.api.ask("PUT", path, {**service, "spec": {**service["spec"], "externalName": "elsewhere.example"}})
        host = stage.start(ready=False)
        if (resource, verb) == ("services", "delete"):
            wait_for(host.is_ready, 20)
            stage.delete("Channel", "orders")
        plural = resource.partition("/")[0]
        named = wait_for(lambda: host.says("cannot", verb, plural), 25, f"the log names {verb} {resource}")
        assert any("forbidden" in line for line in named)
        if resource != "events" and (resource, verb) != ("services", "delete") and plural != "buses":
            wait_for(lambda: _conditions_name(stage, verb, plural), 25, f"a condition names {verb} {resource}")
        stage.api.ask("PUT", role, {**stage.api.ask("GET", role), "rules": ROLE["rules"]})
        if (resource, verb) == ("services", "delete"):
            wait_for(lambda: stage.get("Channel", "orders") is None, 15)
        else:
            stage.merge("Channel", "orders", {"metadata": {"labels": {"look": "again"}}})
            stage.put(manifest("Channel", "more", bus="demo"))
            wait_for(lambda: host.send("orders").status == 202, 60, "cured without a restart")
            wait_for(lambda: server.requests)
        assert host.stop() == 0


def _conditions_name(stage: Stage, verb: str, resource: str) -> bool:
    for kind, name in (("Bus", "demo"), ("Channel", "orders"), ("Subscription", "one")):
        for condition in (stage.get(kind, name) or {}).get("status", {}).get("conditions", ()):
            text = condition.get("message", "")
            if "cannot" in text and verb in text and resource in text:
                return True
    return False
