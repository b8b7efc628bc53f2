"""What `bus manifests` prints is what kustomize makes of deploy/, and the image's steps work outside a container."""

from __future__ import annotations

import shutil
import subprocess
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from bus_core import deploy
from bus_core.cli import cli
from tests.cli.shell import run
from tests.support import ROOT


def objects(text: str) -> dict[tuple[str, str], Any]:
    return {(item["kind"], item["metadata"]["name"]): item for item in yaml.safe_load_all(text) if item}


def kustomize(folder: str) -> dict[tuple[str, str], Any]:
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        pytest.skip("kubectl is missing")
    command = [kubectl, "kustomize", str(ROOT / "deploy" / folder)]
    return objects(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


@pytest.mark.parametrize(
    ("folder", "command"), [("overlays/stub", ["manifests", "--driver", "stub"]), ("crds", ["crds"])]
)
def test_the_overlay_and_the_command_agree(folder: str, command: list[str]) -> None:
    printed = CliRunner().invoke(cli, command)
    assert printed.exit_code == 0
    assert kustomize(folder) == objects(printed.output)


@pytest.mark.parametrize("options", [[], ["--cluster"]])
def test_a_bus_brings_no_kind_of_its_own(options: list[str]) -> None:
    """`kubectl delete` on the manifests of one bus must not delete the channels of all."""
    printed = CliRunner().invoke(cli, ["manifests", "--driver", "stub", *options])
    assert "CustomResourceDefinition" not in {kind for kind, _ in objects(printed.output)}


@pytest.mark.parametrize("folder", ["base", "overlays/stub", "overlays/kafka"])
def test_an_overlay_brings_no_kind(folder: str) -> None:
    assert "CustomResourceDefinition" not in {kind for kind, _ in kustomize(folder)}


def test_the_kinds_are_deleted_by_a_flag_that_says_so() -> None:
    defined = objects(CliRunner().invoke(cli, ["crds"]).stdout)
    printed = run("crds", "--delete-all-channels")
    assert printed.returncode == 0
    assert set(objects(printed.stdout)) == set(defined)
    assert all("spec" not in item for item in objects(printed.stdout).values()), "kubectl apply would refuse it"
    assert "every Bus, ClusterBus, Channel and Subscription" in printed.stderr


def test_another_bus_is_named_everywhere() -> None:
    made = objects(deploy.text(bus="shop", namespace="sales", driver="kafka", image="i:1"))
    assert {name for _, name in made} == {"shop-bus"}
    assert {item["metadata"]["namespace"] for item in made.values()} == {"sales"}
    (container,) = made["Deployment", "shop-bus"]["spec"]["template"]["spec"]["containers"]
    assert container["image"] == "i:1"
    assert {"name": "BUS_DRIVER", "value": "kafka"} in container["env"]
    assert "demo" not in yaml.safe_dump_all(made.values())


def test_a_namespaced_bus_needs_no_right_outside_its_namespace_and_a_cluster_bus_does() -> None:
    kinds = {kind for kind, _ in objects(deploy.text(bus="a", namespace="b", driver="stub", image="i"))}
    assert "ClusterRole" not in kinds
    wide = objects(deploy.text(bus="a", namespace="b", driver="stub", image="i", cluster=True))
    rules = wide["ClusterRole", "b-a-bus"]["rules"]
    assert any("clusterbuses" in rule["resources"] for rule in rules)
    assert not any("leases" in rule["resources"] for rule in rules), "Leases stay where the pods are"


def test_a_name_that_is_none_is_refused() -> None:
    result = CliRunner().invoke(cli, ["manifests", "--driver", "stub", "--bus", "No_Name"])
    assert result.exit_code == 2
    assert "DNS label" in result.output


def test_every_step_of_the_image_is_a_script_that_exists() -> None:
    text = (ROOT / "Containerfile").read_text()
    for script in ("deploy/build-wheels", "deploy/install"):
        assert script in text
        assert (ROOT / script).stat().st_mode & 0o111, "it can be run"
    assert "USER 65532:65532" in text
