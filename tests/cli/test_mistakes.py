"""A user's mistake is one sentence and exit code 2."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.shell import run
from tests.support import QUICKSTART, subscriber
from tests.zygote import run_bus


def test_demo_with_a_driver_that_is_not_there_is_one_sentence() -> None:
    result = run("demo", "--once", "--driver", "nowhere")
    assert result.returncode == 2
    assert result.stderr.startswith("Error: driver 'nowhere' is not installed")
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["run"], "--manifests"),
        (["run", "--manifests", "/nowhere"], "is not a folder"),
        (["run", "--manifests", str(QUICKSTART), "--bus", "a/b/c"], "does not name a bus"),
        (["run", "--manifests", str(QUICKSTART), "--bus", "Default/Demo"], "'Default/Demo' does not name a bus"),
        (["run", "--master", "https://127.0.0.1:1", "--bus", "a_b"], "'a_b' does not name a bus"),
        (["run", "--manifests", str(QUICKSTART), "--bus", "demo"], "did you mean default/demo"),
        (["run", "--manifests", str(QUICKSTART), "--driver", "stub", "--bind", "nonsense"], "HOST:PORT"),
        (["run", "--manifests", str(QUICKSTART), "--driver", "stub", "--bind", "203.0.113.1:80"], "cannot listen on"),
        (["run", "--manifests", str(QUICKSTART), "--driver", "stub", "--state-dir", str(QUICKSTART)], "--state-dir"),
        (["run", "--manifests", str(QUICKSTART), "--driver", "stub", "--workers", "0"], "--workers: input"),
        (["run", "--manifests", str(QUICKSTART), "--driver", "stub", "--set", "nonsense"], "DRIVER.FIELD=VALUE"),
        (["run", "--manifests", str(QUICKSTART), "--driver", "stub", "--set", "kafka.a=b"], "runs on stub"),
        (["run", "--config", "/nowhere.yaml"], "cannot be read"),
        (["send", "orders", "--header", "nonsense"], "NAME=VALUE"),
        (["send", "orders", "--data", "x", "--file", "y"], "not both"),
        (["send", "orders", "--to", "ftp://x"], "scheme"),
        (["send", "orders", "--header", "a b=c"], "the header name 'a b'"),
        (["send", "orders", "--header", "a=b\nc"], "the header a contains LF"),
        (["send", "orders", "--type", ""], "ce-type is empty"),
        (["send", "orders", "--source", ""], "ce-source is empty"),
        (["send", "orders", "--header", "ce-id="], "ce-id is empty"),
        (["send", "a/b/c"], "'a/b/c' does not name a channel"),
        (["send", "a.b.c"], "'a.b.c' does not name a channel"),
        (["send", "/orders"], "'/orders' does not name a channel"),
        (["send", "."], "'.' does not name a channel"),
        (["send", ""], "'' does not name a channel"),
    ],
)
def test_a_users_mistake_is_one_sentence_and_exit_2(arguments: list[str], says: str) -> None:
    result = run_bus(*arguments)
    assert result.returncode == 2, result.stderr
    assert says in result.stderr
    assert "Traceback" not in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize("options", [[], ["--bus", "default/demo"]])
def test_a_mistake_in_the_manifest_of_the_bus_is_what_run_says(tmp_path: Path, options: list[str]) -> None:
    (tmp_path / "bus.yaml").write_text(
        "apiVersion: channels.knative.dev/v1alpha1\nkind: Bus\nmetadata:\n  name: demo\nspec:\n  drivr: stub\n"
    )
    result = run_bus("run", "--manifests", tmp_path, *options)
    assert result.returncode == 2
    assert f"{tmp_path}/bus.yaml:6: spec.drivr: unknown field" in result.stderr
    assert f"bus validate {tmp_path}" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_an_address_in_use_is_said(tmp_path: Path) -> None:
    with subscriber() as other:
        options = ["--driver", "stub", "--state-dir", str(tmp_path), "--bind", f"127.0.0.1:{other.port}"]
        result = run_bus("run", "--manifests", str(QUICKSTART), "--admin-bind", "127.0.0.1:0", *options)
    assert result.returncode == 2
    assert "in use" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--bus", "default/demo"], "--manifests DIR, or a cluster with --kubeconfig FILE"),
        (["--bus", "default/demo", "--kubeconfig", "/nowhere/config"], "there is no such file"),
        (["--manifests", str(QUICKSTART), "--kubeconfig", "/nowhere/config"], "name two sources; give one"),
        (["--master", "https://127.0.0.1:1"], "which bus? give --bus"),
        (
            ["--bus", "demo", "--master", "nonsense"],
            "--master nonsense is not the address of an API server: write https",
        ),
        (["--bus", "demo", "--master", "10.0.0.1:6443"], "--master 10.0.0.1:6443 is not the address"),
        (["--bus", "demo", "--master", "https://"], "--master https:// is not the address"),
        (["--bus", "demo", "--master", "https://a:port"], "--master https://a:port is not the address"),
    ],
)
def test_run_says_where_resources_may_come_from(arguments: list[str], says: str) -> None:
    result = run_bus("run", *arguments)
    assert result.returncode == 2
    assert says in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert "Traceback" not in result.stderr
