"""Creates, edits and deletes at random, while the API server is killed and comes back: in the end all agree."""

from __future__ import annotations

import random
import urllib.error
from collections import Counter
from typing import Any

from tests.e2e.cluster.stage import Stage
from tests.support import manifest, wait_for

STEPS = 300


class Told:
    """What the driver was told, from its own record."""

    def __init__(self, stage: Stage) -> None:
        self.channels: dict[str, str] = {}
        self.subscriptions: dict[str, str] = {}
        self.repeated: list[str] = []
        for line in stage.record.read_text().splitlines():
            _, hook, name, what, *_ = line.split()
            known = self.channels if "provision" in hook else self.subscriptions
            if hook in ("provision", "subscribe"):
                if known.get(name) == what:
                    self.repeated.append(line)
                known[name] = what
            elif hook in ("unprovision", "unsubscribe"):
                known.pop(name, None)


def test_in_the_end_all_agree(lone: Stage) -> None:
    seed = random.randrange(10**6)
    chance = random.Random(seed)
    print(f"\nseed {seed}")
    lone.put(manifest("Bus", "demo", parameters={"channel": [{"name": "size"}], "subscription": [{"name": "size"}]}))
    host = lone.start()
    done: Counter[str] = Counter()
    for step in range(STEPS):
        if step in (100, 200):
            lone.api.kill()
            lone.api.run()
        try:
            done[_step(lone, chance)] += 1
        except (urllib.error.HTTPError, OSError, AssertionError) as error:
            done[type(error).__name__] += 1
    print(dict(done))

    def agree() -> bool:
        channels, subscriptions = _list(lone, "channels"), _list(lone, "subscriptions")
        told = Told(lone)
        served = {name for name, item in subscriptions.items() if item["spec"]["channel"] in channels}
        return (
            not any(item["metadata"].get("deletionTimestamp") for item in (*channels.values(), *subscriptions.values()))
            and set(told.channels) == set(channels)
            and all(_uid(channels[name]) in what for name, what in told.channels.items())
            and set(told.subscriptions) == served
            and all(_uid(subscriptions[name]) in what for name, what in told.subscriptions.items())
            and all(_argument(channels[name]) in what for name, what in told.channels.items())
            and all(_argument(subscriptions[name]) in what for name, what in told.subscriptions.items())
        )

    wait_for(agree, 60, "the driver was told what is wanted")
    assert not Told(lone).repeated, "no hook is called for a state already told"
    writes = _status_writes(lone)
    for name in writes:
        lone.merge("Channel", name, {"metadata": {"labels": {"look": "again"}}})
    lone.put(manifest("Channel", "last", bus="demo", arguments=[{"name": "size", "value": "1"}]))
    lone.wait_condition("Channel", "last", "True")
    assert writes == {name: when for name, when in _status_writes(lone).items() if name != "last"}, "nothing to say"
    assert host.stop() == 0


def _step(lone: Stage, chance: random.Random) -> str:
    kind, prefix = chance.choice([("Channel", "c"), ("Subscription", "s")])
    name = f"{prefix}{chance.randrange(8)}"
    exists = lone.get(kind, name) is not None
    arguments = [{"name": "size", "value": str(chance.randrange(1000))}]
    if not exists:
        spec: dict[str, Any] = {"bus": "demo"}
        if kind == "Subscription":
            spec = {"channel": f"c{chance.randrange(8)}", "subscriber": "http://nobody.localhost:1/"}
        lone.put(manifest(kind, name, **spec, arguments=arguments))
        return "create"
    if chance.random() < 0.5:
        lone.merge(kind, name, {"spec": {"arguments": arguments}})
        return "edit"
    lone.delete(kind, name)
    return "delete"


def _list(lone: Stage, plural: str) -> dict[str, dict[str, Any]]:
    path = f"/apis/channels.knative.dev/v1alpha1/namespaces/{lone.namespace}/{plural}"
    return {item["metadata"]["name"]: item for item in lone.api.ask("GET", path)["items"]}


def _uid(item: dict[str, Any]) -> str:
    return str(item["metadata"]["uid"])


def _argument(item: dict[str, Any]) -> str:
    return f"('size','{item['spec']['arguments'][0]['value']}')"


def _status_writes(stage: Stage) -> dict[str, list[str]]:
    """When the status of each channel was written, as the server noted it."""
    return {
        name: [entry["time"] for entry in item["metadata"]["managedFields"] if entry.get("subresource") == "status"]
        for name, item in _list(stage, "channels").items()
    }
