"""The Kafka overlay with a real API server and a real broker: what it sets is what a host is started with."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import yaml

from tests.e2e.cluster.stage import Stage, basics
from tests.e2e.kafka.cluster import Cluster
from tests.support import ROOT, subscriber, wait_for


def test_the_overlay_with_a_broker(stage: Stage, tmp_path: Path) -> None:
    cluster = Cluster(tmp_path / "kafka")
    try:
        with subscriber() as server:
            cluster.start()
            shutil.copytree(ROOT / "deploy", tmp_path / "deploy")
            shutil.copytree(ROOT / "bus_core" / "deploy", tmp_path / "bus_core" / "deploy")
            overlay = tmp_path / "deploy" / "overlays" / "kafka"
            (overlay / "kafka.env").write_text(f"KAFKA_BROKERS={cluster.bootstrap}\n")
            command = ["kubectl", "kustomize", str(overlay)]
            built = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            stage.api.kubectl("apply", "-f", "-", stdin=built)
            objects = {item["kind"]: item for item in yaml.safe_load_all(built)}
            (container,) = objects["Deployment"]["spec"]["template"]["spec"]["containers"]
            env = {entry["name"]: entry.get("value", "") for entry in container["env"]}
            assert env["BUS_DRIVER"] == "kafka"
            stage.put(*basics(server.url()))
            host = stage.start(driver=env["BUS_DRIVER"], **objects["ConfigMap"]["data"])
            stage.wait_condition("Channel", "orders", "True", timeout=30)
            stage.wait_condition("Subscription", "one", "True", timeout=30)
            wait_for(lambda: host.send("orders", b"durable").status == 202, 30)
            wait_for(lambda: b"durable" in server.bodies(), 30)
            stage.api.kubectl("-n", stage.namespace, "delete", "channel", "orders", "--timeout=30s")
            assert host.stop() == 0
    finally:
        cluster.stop()
