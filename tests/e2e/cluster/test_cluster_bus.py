"""A ClusterBus: channels of any namespace, with the rights that `bus manifests --cluster` gives and no more."""

from __future__ import annotations

import yaml

from bus_core import deploy
from tests.e2e.cluster.server import ApiServer
from tests.e2e.cluster.stage import GROUP
from tests.support import BusProcess, manifest, subscriber, wait_for


def test_it_serves_channels_of_other_namespaces(api: ApiServer) -> None:
    objects = deploy.objects(bus="wide", namespace="default", driver="stub", image="bus-core:0.1.0", cluster=True)
    api.kubectl("apply", "-f", "-", stdin=yaml.safe_dump_all(objects))
    api.kubectl("create", "namespace", "elsewhere")
    config = api.kubeconfig("wide", api.token_of("default", "wide-bus"))
    with subscriber() as server:
        api.ask("POST", f"{GROUP}/clusterbuses", manifest("ClusterBus", "wide"))
        for item in (
            manifest("Channel", "orders", clusterBus="wide"),
            manifest("Subscription", "one", channel="orders", subscriber=server.url()),
        ):
            item["metadata"]["namespace"] = "elsewhere"
            api.ask("POST", f"{GROUP}/namespaces/elsewhere/{item['kind'].lower()}s", item)
        process = BusProcess(None, None, "--kubeconfig", str(config), "--driver", "stub", bus="wide")
        try:
            process.wait_ready(30)
            process.namespace = "elsewhere"
            for name in ("channel/orders", "subscription/one"):
                api.kubectl("-n", "elsewhere", "wait", "--for=condition=Ready", name, "--timeout=20s")
            api.kubectl("wait", "--for=condition=Ready", "clusterbus/wide", "--timeout=20s")
            wait_for(lambda: process.send("orders", b"far").status == 202)
            wait_for(lambda: b"far" in server.bodies())
            assert "wide-bus.default" in api.kubectl("-n", "elsewhere", "get", "service", "orders-channel")
            assert "clusterbus-wide-provisioner" in api.kubectl("get", "leases")
            api.kubectl("-n", "elsewhere", "delete", "channel,subscription", "--all", "--timeout=30s")
            assert process.stop() == 0
        finally:
            process.kill()
