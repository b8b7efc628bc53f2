"""Uninstalling one bus leaves the kinds and the channels of every other bus; removing the kinds takes a flag."""

from __future__ import annotations

import pytest

from tests.e2e.cluster.stage import Stage
from tests.support import manifest, wait_for
from tests.zygote import run_bus

GROUP = "/apis/channels.knative.dev/v1alpha1"


def printed(*arguments: str) -> str:
    result = run_bus(*arguments)
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.mark.parametrize("options", [[], ["--cluster"]])
def test_one_bus_goes_and_the_others_channels_stay(lone: Stage, options: list[str]) -> None:
    kubectl, ask = lone.api.kubectl, lone.api.ask
    other = ["manifests", "--driver", "stub", "--bus", "shop", "--namespace", "sales", *options]
    kubectl("create", "namespace", "sales")
    kubectl("apply", "-f", "-", stdin=printed(*other))
    lone.put(manifest("Bus", "demo"), manifest("Channel", "orders", bus="demo"))
    before = ask("GET", f"{GROUP}/channels")["items"]

    assert "shop-bus" in kubectl("delete", "-f", "-", stdin=printed(*other))

    assert "shop-bus" not in kubectl("-n", "sales", "get", "deployments,services,serviceaccounts,roles")
    assert "demo-bus" in kubectl("-n", lone.namespace, "get", "deployments")
    kinds = kubectl("get", "customresourcedefinitions", "-o", "name").splitlines()
    assert len([kind for kind in kinds if kind.endswith(".channels.knative.dev")]) == 4
    assert ask("GET", f"{GROUP}/channels")["items"] == before
    assert len(before) == 1


def test_the_kinds_go_with_a_flag_that_says_what_it_deletes(lone: Stage) -> None:
    lone.put(manifest("Channel", "orders", bus="demo"))
    names = printed("crds", "--delete-all-channels")
    refused = lone.api.kubectl("apply", "-f", "-", stdin=names, check=False)
    assert "spec" in refused, "it is for deleting alone"
    lone.api.kubectl("delete", "-f", "-", "--timeout=60s", stdin=names)
    wait_for(lambda: "channels.knative.dev" not in lone.api.kubectl("get", "customresourcedefinitions", check=False))
