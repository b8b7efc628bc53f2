"""What a newcomer types: kinds, quickstart, wait, send, look. And the server refuses what `bus validate` refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from bus_core.control_plane import crds
from tests.e2e.cluster.server import ApiServer
from tests.e2e.cluster.stage import Stage, basics
from tests.support import QUICKSTART, ROOT, Answer, Request, manifest, subscriber, wait_for

CASES = yaml.safe_load((ROOT / "tests" / "crds" / "cases.yaml").read_text())


def test_the_quickstart(stage: Stage, tmp_path: Path) -> None:
    def behave(request: Request) -> Answer:
        if request.host.startswith("billing"):
            return Answer(200, b'{"answer": 1}', {"content-type": "application/json"})
        return Answer()

    kubectl, namespace = stage.api.kubectl, stage.namespace
    with subscriber(behave) as server:
        for path in QUICKSTART.glob("*.yaml"):
            (tmp_path / path.name).write_text(path.read_text().replace(":8090", f":{server.port}"))
        folder = tmp_path / "quickstart"
        folder.mkdir()
        for path in tmp_path.glob("*.yaml"):
            path.rename(folder / path.name)
        kubectl("apply", "-f", "-", stdin=crds.text())
        kubectl("-n", namespace, "apply", "-f", str(folder))
        host = stage.start(driver="stub")
        for name in ("channel/orders", "channel/receipts", "subscription/billing", "bus/demo"):
            kubectl("-n", namespace, "wait", "--for=condition=Ready", name, "--timeout=20s")
        kubectl("-n", namespace, "wait", "--for=condition=Ready", "subscription", "--all", "--timeout=20s")
        wait_for(lambda: host.send("orders", b"hello").status == 202)
        for name in ("shipping", "billing", "mailbox"):
            wait_for(lambda name=name: server.bodies(name), what=name)  # type: ignore[misc]
        assert server.bodies("mailbox")[0] == b'{"answer": 1}'
        shown = kubectl("-n", namespace, "get", "buses,channels,subscriptions")
        assert shown.count("True") == 6, shown
        described = kubectl("-n", namespace, "describe", "channel", "orders")
        assert "Synced" in described
        assert "the channel is provisioned" in described
        assert "orders-channel" in kubectl("-n", namespace, "get", "services")
        assert "FIELDS" in kubectl("explain", "channel.spec")
        assert host.stop() == 0


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_the_server_refuses_what_validate_refuses(api: ApiServer, case: dict[str, Any]) -> None:
    api.kubectl("create", "namespace", "shop", check=False)  # one of the good ones names it
    arguments = ("create", "--dry-run=server", "--validate=strict", "-f", "-")
    said = api.kubectl(*arguments, stdin=case["object"], check=False)
    assert ("created" in said) == bool(case.get("good")), said


def test_what_cannot_be_changed_is_refused_by_the_server(stage: Stage) -> None:
    stage.put(manifest("Bus", "demo", driver="stub"), *basics("http://nobody.localhost:1/")[1:])
    for kind, name, spec in (
        ("bus", "demo", "driver: kafka"),
        ("channel", "orders", "bus: other"),
        ("channel", "orders", "{bus: null, clusterBus: demo}"),
        ("subscription", "one", "channel: other"),
    ):
        patch = ("patch", kind, name, "--type=merge", "-p", f"spec: {spec if spec[0] == '{' else '{' + spec + '}'}")
        said = stage.api.kubectl("-n", stage.namespace, *patch, check=False)
        assert "cannot be changed" in said, said
