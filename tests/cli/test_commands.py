"""The other commands of `bus`, as a shell sees them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.support import BUS, QUICKSTART, BusProcess, Subscriber, bus, free_port, manifest, subscriber, wait_for
from tests.zygote import run_bus


def run(*arguments: str, stdin: str = "", **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [BUS, *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, **env},
    )


def test_demo_without_a_terminal_does_the_main_job_and_ends() -> None:
    began = time.monotonic()
    result = run("demo")
    assert result.returncode == 0, result.stderr
    assert time.monotonic() - began < 30
    for name in ("shipping", "billing", "mailbox"):
        assert result.stdout.count(f"→ {name}") == 3
    assert "all 3 events reached every subscription" in result.stdout


def test_demo_with_a_driver_that_is_not_there_is_one_sentence() -> None:
    result = run("demo", "--once", "--driver", "nowhere")
    assert result.returncode == 2
    assert result.stderr.startswith("Error: driver 'nowhere' is not installed")
    assert "Traceback" not in result.stderr


def test_crds_prints_four_definitions() -> None:
    definitions = list(yaml.safe_load_all(run_bus("crds").stdout))
    kinds = [definition["spec"]["names"]["kind"] for definition in definitions]
    assert kinds == ["Bus", "ClusterBus", "Channel", "Subscription"]


def test_crds_into_a_pipe_that_closes_ends_quietly() -> None:
    result = subprocess.run(
        f"{BUS} crds | head -n 1", shell=True, capture_output=True, text=True, check=False, timeout=30
    )
    assert "Traceback" not in result.stderr
    assert result.stdout.startswith("#")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize("command", ["crds", "plugins", f"validate {QUICKSTART}", "--help"])
def test_output_for_which_there_is_no_room_is_one_sentence(command: str) -> None:
    result = subprocess.run(
        f"{BUS} {command} > /dev/full", shell=True, capture_output=True, text=True, check=False, timeout=30
    )
    assert result.returncode == 1
    assert result.stderr == ("Error: it could not be written: No space left on device; make room, or write elsewhere\n")


def test_validate_accepts_the_quickstart() -> None:
    result = run_bus("validate", str(QUICKSTART), "-o", "json")
    assert result.returncode == 0
    report = json.loads(result.stdout)
    assert len(report["resources"]) == 6
    assert report["errors"] == []


def test_validate_says_file_line_and_field(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(
        "apiVersion: channels.knative.dev/v1alpha1\nkind: Subscription\nmetadata:\n  name: a\n"
        "spec:\n  channel: nowhere\n  subscriberr: x\n"
    )
    result = run_bus("validate", str(tmp_path))
    assert result.returncode == 2
    assert f"{tmp_path}/a.yaml:7: spec.subscriberr: unknown field; did you mean 'subscriber'?" in result.stderr
    assert "Traceback" not in result.stderr


def test_validate_follows_references(tmp_path: Path) -> None:
    objects = [
        manifest("Bus", "b"),
        manifest("Channel", "c", bus="other"),
        manifest("Subscription", "s", channel="x", subscriber="there"),
    ]
    (tmp_path / "a.yaml").write_text(yaml.safe_dump_all(objects))
    result = run_bus("validate", str(tmp_path), "-o", "json")
    assert [error["field"] for error in json.loads(result.stdout)["errors"]] == ["spec.bus", "spec.channel"]
    assert run_bus("validate", str(tmp_path / "nowhere")).returncode == 2


def test_plugins_as_json() -> None:
    drivers = json.loads(run_bus("plugins", "-o", "json").stdout)
    assert [(driver["name"], driver["package"], driver["problem"]) for driver in drivers] == [
        ("kafka", "kafka-bus", ""),
        ("stub", "stub-bus", ""),
    ]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["run"], "--manifests"),
        (["run", "--manifests", "/nowhere"], "is no folder"),
        (["run", "--manifests", str(QUICKSTART), "--bus", "a/b/c"], "names no bus"),
        (["run", "--manifests", str(QUICKSTART), "--bus", "Default/Demo"], "'Default/Demo' names no bus"),
        (["run", "--master", "https://127.0.0.1:1", "--bus", "a_b"], "'a_b' names no bus"),
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
        (["send", "orders", "--header", "a=b\nc"], "the header a holds LF"),
        (["send", "orders", "--type", ""], "ce-type is empty"),
        (["send", "orders", "--source", ""], "ce-source is empty"),
        (["send", "orders", "--header", "ce-id="], "ce-id is empty"),
        (["send", "a/b/c"], "'a/b/c' names no channel"),
        (["send", "a.b.c"], "'a.b.c' names no channel"),
        (["send", "/orders"], "'/orders' names no channel"),
        (["send", "."], "'.' names no channel"),
        (["send", ""], "'' names no channel"),
    ],
)
def test_a_users_mistake_is_one_sentence_and_exit_2(arguments: list[str], says: str) -> None:
    result = run_bus(*arguments)
    assert result.returncode == 2, result.stderr
    assert says in result.stderr
    assert "Traceback" not in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize(("name", "kind"), [("default/demos", "Bus"), ("demo", "ClusterBus")])
def test_a_bus_that_no_manifest_names_is_made_and_said(tmp_path: Path, name: str, kind: str) -> None:
    process = BusProcess(QUICKSTART, tmp_path / "state", "--driver", "stub", bus=name)
    try:
        process.wait_ready()
        there = "there is default/demo, and no channel names it"
        assert process.says("warning", f"there is no {kind} {name} in {QUICKSTART} ({there}); one is made in memory")
    finally:
        process.kill()


def test_a_bus_made_for_the_channels_that_name_it_is_no_warning(running: tuple[BusProcess, Subscriber]) -> None:
    process, _ = running
    assert process.says('"level": "info"', "there is no Bus default/demo in", "one is made in memory")
    assert not process.says('"level": "warning"')


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


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[BusProcess, Subscriber]]:
    folder = tmp_path_factory.mktemp("manifests")
    with subscriber() as sink:
        objects = [
            manifest("Channel", "orders", bus="demo"),
            manifest("Subscription", "one", channel="orders", subscriber=sink.url()),
        ]
        (folder / "all.yaml").write_text(yaml.safe_dump_all(objects))
        options = ("--driver", "stub", "--forward-headers", "x-tenant")
        with bus(folder, tmp_path_factory.mktemp("state"), *options) as process:
            yield process.wait_served("orders"), sink


def test_send_makes_a_valid_cloudevent(running: tuple[BusProcess, Subscriber]) -> None:
    process, sink = running
    to = f"http://{process.events}/"
    result = run(
        "send",
        "default/orders",
        "--to",
        to,
        "--data",
        "-",
        "--type",
        "a.b",
        "--header",
        "ce-subject=s",
        "--header",
        "X-Tenant=acme",
        stdin='{"a": 1}',
    )
    assert (result.returncode, result.stdout.strip()) == (0, "1 × 202")
    got = wait_for(lambda: [r for r in sink.requests if r.headers.get("ce-type") == "a.b"])[0]
    assert got.body == b'{"a": 1}'
    assert got.headers["content-type"] == "application/json"
    assert got.headers["ce-subject"] == "s"
    assert got.headers["x-tenant"] == "acme", "it goes to the bus, which was told to forward it"
    assert {"ce-id", "ce-source", "ce-specversion", "ce-time"} <= set(got.headers)


def test_send_many_at_a_rate_counts_the_answers(running: tuple[BusProcess, Subscriber]) -> None:
    process, _ = running
    began = time.monotonic()
    result = run("send", "orders", "--to", f"http://{process.events}/", "--count", "21", "--rate", "40", "-o", "json")
    assert json.loads(result.stdout)["answers"] == {"202": 21}
    assert time.monotonic() - began >= 0.5


def test_send_takes_the_host_of_a_channel_for_its_name(running: tuple[BusProcess, Subscriber]) -> None:
    process, _ = running
    result = run_bus("send", "orders.default", "--to", f"http://{process.events}/", "-o", "json")
    assert json.loads(result.stdout) == {"channel": "orders.default", "answers": {"202": 1}, "problem": ""}


def test_send_says_why_an_event_was_not_taken(running: tuple[BusProcess, Subscriber]) -> None:
    process, _ = running
    result = run("send", "nowhere", "--to", f"http://{process.events}/")
    assert result.returncode == 1
    assert "1 × 404" in result.stdout
    assert "there is no channel default/nowhere" in result.stderr
    result = run("send", "orders", "--to", f"http://127.0.0.1:{free_port()}/")
    assert result.returncode == 1
    assert "no answer" in result.stdout
    assert "Traceback" not in result.stderr


def test_ctrl_c_ends_a_run_with_0_and_what_is_not_done_with_130(tmp_path: Path) -> None:
    with subscriber() as sink:
        sending = ["send", "orders", "--count", "1000", "--rate", "5", "--to", sink.url()]
        # In the background of a script SIGINT is ignored, and a child would inherit that.
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        process = subprocess.Popen([BUS, *sending], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        signal.signal(signal.SIGINT, before)
        wait_for(lambda: sink.requests, 20)
        process.send_signal(signal.SIGINT)
        assert b"Traceback" not in process.communicate(timeout=10)[1]
        assert process.returncode == 130
    with bus(QUICKSTART, tmp_path, "--driver", "stub") as serving:
        assert serving.stop(signal.SIGINT) == 0


def test_help_names_every_command() -> None:
    text = run("--help").stdout
    for command in ("run", "demo", "send", "validate", "plugins", "crds"):
        assert f"  {command} " in text


def test_help_says_which_paths_are_files() -> None:
    text = run_bus("run", "--help").stdout
    for option in ("--kubeconfig FILE", "--config FILE", "--manifests DIR", "--secrets-dir DIR"):
        assert option in text


def test_settings_come_from_flag_then_environment_then_file(tmp_path: Path) -> None:
    (tmp_path / "settings.yaml").write_text("bind: 'file'\nadmin_bind: 'file'\nlog_level: debug\n")
    program = (
        "from bus_core.settings.resolve import load_settings\n"
        f"s = load_settings({{'config': {str(tmp_path / 'settings.yaml')!r}, 'bind': 'flag'}})\n"
        "print(s.bind, s.admin_bind, s.log_level, s.bus_name)"
    )
    env = {**os.environ, "BUS_BIND": "env", "BUS_ADMIN_BIND": "env", "BUS_NAMESPACE": "ns", "BUS_NAME": "n"}
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=env, check=True)
    assert result.stdout.split() == ["flag", "env", "debug", "ns/n"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--bus", "default/demo"], "--manifests DIR, or a cluster with --kubeconfig FILE"),
        (["--bus", "default/demo", "--kubeconfig", "/nowhere/config"], "there is no such file"),
        (["--manifests", str(QUICKSTART), "--kubeconfig", "/nowhere/config"], "name two sources; give one"),
        (["--master", "https://127.0.0.1:1"], "which bus? give --bus"),
        (["--bus", "demo", "--master", "nonsense"], "--master nonsense is no address of an API server: write https"),
        (["--bus", "demo", "--master", "10.0.0.1:6443"], "--master 10.0.0.1:6443 is no address"),
        (["--bus", "demo", "--master", "https://"], "--master https:// is no address"),
        (["--bus", "demo", "--master", "https://a:port"], "--master https://a:port is no address"),
    ],
)
def test_run_says_where_resources_may_come_from(arguments: list[str], says: str) -> None:
    result = run_bus("run", *arguments)
    assert result.returncode == 2
    assert says in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert "Traceback" not in result.stderr


def test_a_run_that_waits_for_its_bus_says_so_and_ends_when_told() -> None:
    process = subprocess.Popen(
        [str(BUS), "run", "--bus", "default/demo", "--master", "https://127.0.0.1:1"],
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    line = process.stderr.readline()
    assert "waiting for the bus" in line
    process.send_signal(signal.SIGTERM)
    assert process.wait(5) == 0
    process.stderr.close()
