"""A namespace with a bus on the real API server: what `bus manifests` prints is applied, and its account is used."""

from __future__ import annotations

import urllib.error
from pathlib import Path
from typing import Any

import yaml

from bus_core import deploy
from tests.e2e.cluster.server import ApiServer
from tests.packages import recording_package
from tests.support import BusProcess, manifest, wait_for

GROUP = "/apis/channels.knative.dev/v1alpha1"
PLURALS = {"Bus": "buses", "Channel": "channels", "Subscription": "subscriptions"}


class Stage:
    """One bus `demo` in a namespace of its own; hosts run with the token of the account that is its due."""

    def __init__(self, api: ApiServer, folder: Path, namespace: str) -> None:
        self.api = api
        self.folder = folder
        self.namespace = namespace
        self.hosts: list[BusProcess] = []
        self.record = folder / "record"
        self.record.touch()
        self.site = recording_package(folder / "site")
        api.ask("POST", "/api/v1/namespaces", {"metadata": {"name": namespace}})
        objects = deploy.objects(bus="demo", namespace=namespace, driver="stub", image="bus-core:0.1.0")
        api.kubectl("apply", "-f", "-", stdin=yaml.safe_dump_all(objects))
        self.kubeconfig = api.kubeconfig(namespace, api.token_of(namespace, "demo-bus"))

    def put(self, *objects: dict[str, Any]) -> None:
        """Create objects in the namespace."""
        for item in objects:
            item["metadata"]["namespace"] = self.namespace
            self.api.ask("POST", self._path(item["kind"]), item)

    def merge(self, kind: str, name: str, patch: dict[str, Any]) -> None:
        text = yaml.safe_dump(patch)
        self.api.kubectl("-n", self.namespace, "patch", kind.lower(), name, "--type=merge", "-p", text)

    def get(self, kind: str, name: str) -> dict[str, Any] | None:
        try:
            found: dict[str, Any] = self.api.ask("GET", self._path(kind, name))
        except urllib.error.HTTPError as error:
            assert error.code == 404, error
            return None
        return found

    def delete(self, kind: str, name: str) -> None:
        self.api.ask("DELETE", self._path(kind, name))

    def condition(self, kind: str, name: str, type_: str = "Ready") -> dict[str, str]:
        found = self.get(kind, name) or {}
        listed = found.get("status", {}).get("conditions", ())
        return next((condition for condition in listed if condition["type"] == type_), {})

    def wait_condition(self, kind: str, name: str, status: str, *fragments: str, timeout: float = 15) -> dict[str, str]:
        def holds() -> dict[str, str]:
            now = self.condition(kind, name)
            text = f"{now.get('reason')} {now.get('message')}"
            return now if now.get("status") == status and all(part in text for part in fragments) else {}

        try:
            return wait_for(holds, timeout)
        except AssertionError:
            log = self.hosts[-1].log[-3000:] if self.hosts else ""
            raise AssertionError(
                f"{kind} {name} is {self.condition(kind, name)}, not {status} {fragments}\n{log}"
            ) from None

    def events(self, name: str, reason: str) -> list[dict[str, Any]]:
        """The Events about a resource."""
        listed = self.api.ask("GET", f"/apis/events.k8s.io/v1/namespaces/{self.namespace}/events")["items"]
        return [item for item in listed if item["regarding"]["name"] == name and item["reason"] == reason]

    def start(
        self, *options: str, driver: str = "recording", server: str = "", ready: bool = True, **env: str
    ) -> BusProcess:
        config = self.kubeconfig
        if server:
            token = yaml.safe_load(config.read_text())["users"][0]["user"]["token"]
            config = self.api.kubeconfig(f"{self.namespace}-proxied", token, server=server)
        process = BusProcess(
            None, None, "--kubeconfig", str(config), "--driver", driver, "--deletion-grace", "0.2", *options,
            bus=f"{self.namespace}/demo", env={"PYTHONPATH": str(self.site), "RECORD": str(self.record), **env},
        )  # fmt: skip
        self.hosts.append(process)
        return process.wait_ready(30) if ready else process

    def calls(self, hook: str, name: str = "") -> list[int]:
        """The processes that called a hook, in order."""
        lines = (line.split() for line in self.record.read_text().splitlines())
        return [int(parts[0]) for parts in lines if parts[1] == hook and (not name or parts[2] == name)]

    def close(self) -> None:
        for host in self.hosts:
            host.kill()

    def _path(self, kind: str, name: str = "") -> str:
        return f"{GROUP}/namespaces/{self.namespace}/{PLURALS[kind]}" + (f"/{name}" if name else "")


def basics(subscriber: str) -> list[dict[str, Any]]:
    """A bus, a channel and a subscription."""
    return [
        manifest("Bus", "demo"),
        manifest("Channel", "orders", bus="demo"),
        manifest("Subscription", "one", channel="orders", subscriber=subscriber),
    ]
