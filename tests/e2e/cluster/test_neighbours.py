"""Beside today's Knative: no short name means both, and a name in full means ours."""

from __future__ import annotations

import itertools

import yaml

from bus_core.control_plane import crds
from tests.e2e.cluster.neighbours import NEIGHBOURS, install_neighbours
from tests.e2e.cluster.stage import Stage, basics

OURS = [item["spec"]["names"] for item in yaml.safe_load_all(crds.text())]


def test_no_short_name_is_one_of_knatives() -> None:
    theirs = set(itertools.chain.from_iterable(short for _, short in NEIGHBOURS.values()))
    ours = set(itertools.chain.from_iterable(names.get("shortNames", ()) for names in OURS))
    assert not ours & theirs


def test_names_in_full_mean_our_kinds_where_both_are_installed(lone: Stage) -> None:
    install_neighbours(lone.api)
    kubectl = lone.api.kubectl
    for kind in ("Channel", "Subscription"):
        theirs = {"apiVersion": "messaging.knative.dev/v1", "kind": kind, "metadata": {"name": "theirs"}}
        kubectl("-n", lone.namespace, "apply", "-f", "-", stdin=yaml.safe_dump(theirs))
    lone.put(*basics("http://nobody.localhost:1/"))
    host = lone.start()
    for name in ("channels.channels.knative.dev/orders", "subscriptions.channels.knative.dev/one"):
        kubectl("-n", lone.namespace, "wait", "--for=condition=Ready", name, "--timeout=20s")
    for names in OURS:
        shown = kubectl("get", f"crd/{names['plural']}.channels.knative.dev", "-o", "yaml")
        conditions = {item["type"]: item["status"] for item in yaml.safe_load(shown)["status"]["conditions"]}
        assert conditions["NamesAccepted"] == "True"
        for short in names.get("shortNames", ()):
            listed = kubectl("-n", lone.namespace, "get", short, "-o", "name")
            assert "theirs" not in listed, short
    assert kubectl("-n", lone.namespace, "get", "sub", "-o", "name").split() == [
        "subscription.messaging.knative.dev/theirs"
    ]
    kinds = "subscriptions.channels.knative.dev,channels.channels.knative.dev"
    deleted = kubectl("-n", lone.namespace, "delete", kinds, "--all", "--timeout=30s")
    assert "theirs" not in deleted
    assert lone.get("Channel", "orders") is None
    assert "theirs" in kubectl("-n", lone.namespace, "get", "channels.messaging.knative.dev")
    assert host.stop() == 0
