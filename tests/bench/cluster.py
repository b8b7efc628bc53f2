"""Ten thousand channels on a real API server: restart, first provisioning, memory, and how soon a new one works."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import urllib3

from bus_core.control_plane import crds
from tests.bench.machine import nginx, rss
from tests.bench.report import MissingTool, Report, Spread
from tests.e2e.cluster.server import ADMIN, ApiServer, build
from tests.e2e.cluster.stage import GROUP, Stage
from tests.support import manifest, wait_for

CHANNELS = 10_000
NEW = 50


def run(rounds: int, seconds: float) -> list[Report]:
    if build() is None:
        raise MissingTool("go is not installed, and the API server is built from its module")
    with tempfile.TemporaryDirectory() as name, nginx() as sink, contextlib.ExitStack() as stack:
        api = ApiServer(Path(name) / "api").start()
        stack.callback(api.stop)
        api.kubectl("apply", "-f", "-", stdin=crds.text())
        wait_for(lambda: "subscriptions" in api.kubectl("api-resources"), 20)
        stage = Stage(api, Path(name), "bench")
        stack.callback(stage.close)
        stage.put(manifest("Bus", "demo"))
        _populate(stage, sink.url())
        report = Report(f"A cluster with {CHANNELS:,} channels and a subscription each", ["what", "figure"])

        version, began = _version(api), time.monotonic()
        host = stage.start(driver="stub", ready=False)
        wait_for(host.is_ready, 1200)
        report.row("first provisioning, seconds", time.monotonic() - began)
        assert _provisioned(api) == CHANNELS
        report.row("writes per channel (resource versions)", (_version(api) - version) / CHANNELS)
        assert host.stop() == 0

        restarts, lists = [], []
        for _ in range(min(rounds, 3)):
            lists.append(_bare_list(stage))
            began = time.monotonic()
            host = stage.start(driver="stub", ready=False)
            wait_for(host.is_ready, 300)
            restarts.append(time.monotonic() - began)
            assert host.stop(timeout=60) == 0
        report.row("restart, exec to readyz, seconds", Spread.of(restarts))
        report.row("a bare paged list of the same, seconds", Spread.of(lists))
        report.at_most("restart, of the bare list", Spread.of(restarts).median / Spread.of(lists).median, 3)

        host = stage.start(driver="stub", ready=False)
        wait_for(host.is_ready, 300)
        report.row("RSS of the worker, MB", memory := rss(host.worker_pids()))
        report.at_most("RSS of a worker, MB", memory, 250)
        delays = sorted(_first_event(stage, host, sink.url(), sink.count, number) for number in range(NEW))
        report.row("a new subscription's first event, p50 s", delays[NEW // 2])
        report.row("a new subscription's first event, p99 s", delays[-1])
        host.stop(timeout=60)
    return [report]


def _populate(stage: Stage, url: str) -> None:
    """All channels and subscriptions, over connections that are kept."""
    headers = {"Authorization": f"Bearer {ADMIN}", "Content-Type": "application/json"}
    pool = urllib3.HTTPSConnectionPool(
        "127.0.0.1", stage.api.port, maxsize=4, headers=headers, ca_certs=str(stage.api.ca_file), assert_hostname=False
    )

    def post(plural: str, item: dict[str, Any]) -> None:
        path = f"{GROUP}/namespaces/{stage.namespace}/{plural}"
        item["metadata"]["namespace"] = stage.namespace
        answer = pool.request("POST", path, body=json.dumps(item))
        assert answer.status == 201, answer.data

    def make(number: int) -> None:
        post("channels", manifest("Channel", f"c{number}", bus="demo"))
        post("subscriptions", manifest("Subscription", f"s{number}", channel=f"c{number}", subscriber=url))

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(make, range(CHANNELS)))


def _make(stage: Stage, number: int, url: str) -> None:
    stage.put(manifest("Channel", f"c{number}", bus="demo"))
    stage.put(manifest("Subscription", f"s{number}", channel=f"c{number}", subscriber=url))


def _version(api: ApiServer) -> int:
    return int(api.ask("GET", f"{GROUP}/channels?limit=1")["metadata"]["resourceVersion"])


def _provisioned(api: ApiServer) -> int:
    return sum(
        any(found["type"] == "Ready" and found["status"] == "True" for found in item["status"]["conditions"])
        for item in api.ask("GET", f"{GROUP}/channels")["items"]
    )


def _bare_list(stage: Stage) -> float:
    """What a program must at least do: connect, and read both kinds in pages. A process of its own, from exec on."""
    program = (
        "import json, ssl, sys, urllib.request\n"
        "context = ssl.create_default_context(); context.check_hostname = False; context.verify_mode = ssl.CERT_NONE\n"
        "for kind in ('channels', 'subscriptions'):\n"
        "    token = ''\n"
        "    while True:\n"
        "        path = f'{sys.argv[1]}{sys.argv[2]}/{kind}?limit=500&continue={token}'\n"
        "        request = urllib.request.Request(path, headers={'Authorization': 'Bearer ' + sys.argv[3]})\n"
        "        page = json.loads(urllib.request.urlopen(request, context=context).read())\n"
        "        token = page['metadata'].get('continue', '')\n"
        "        if not token: break\n"
    )
    token = stage.api.token_of(stage.namespace, "demo-bus")
    began = time.monotonic()
    path = f"{GROUP}/namespaces/{stage.namespace}"
    subprocess.run([sys.executable, "-c", program, stage.api.url, path, token], check=True, timeout=300)
    return time.monotonic() - began


def _first_event(stage: Stage, host: Any, url: str, count: Any, number: int) -> float:
    """From the moment that a channel with a subscription is created to the arrival of an event, sent as soon as it is
    taken."""
    before = count()
    began = time.monotonic()
    _make(stage, CHANNELS + number, url)
    wait_for(lambda: host.send(f"c{CHANNELS + number}").status == 202, 60)
    wait_for(lambda: stage.condition("Subscription", f"s{CHANNELS + number}").get("status") == "True", 60)
    wait_for(lambda: host.send(f"c{CHANNELS + number}").status == 202 and count() > before, 60)
    return time.monotonic() - began
