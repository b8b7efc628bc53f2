"""Where a setting that is wrong was given: the flag, the variable, or the line of the file."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import QUICKSTART, free_port
from tests.zygote import run_bus


def refusal(*options: str | Path, driver: str = "stub", **env: str) -> str:
    """What `bus run` says about the user's mistake."""
    result = run_bus("run", "--manifests", QUICKSTART, "--driver", driver, *options, env=env)
    assert result.returncode == 2, result.stderr
    assert len(result.stderr.splitlines()) == 1
    return result.stderr.strip().removeprefix("Error: ")


@pytest.mark.parametrize(
    ("driver", "text", "says"),
    [
        (
            "stub",
            "log_level: info\nadmin-bind: x\n",
            ":2: admin-bind: there is no such setting; did you mean 'admin_bind'?",
        ),
        ("stub", "bindd: x", ":1: bindd: there is no such setting; did you mean 'bind'?"),
        ("stub", "bind: {a: b}", ":1: bind: input should be a valid string"),
        ("stub", "workers: 0", ":1: workers: input should be greater than or equal to 1"),
        ("stub", "kafka: 5", ":1: kafka: there is no such setting; the section of a driver holds FIELD: VALUE lines"),
        ("stub", "stub: {x: 1}", ":1: stub.x"),
        ("stub", "kafak: {x: 1}", ":1: kafak: there is no such setting, and no such driver is installed"),
        ("stub", "bind: a:1\nworkers: 1\nbind: b:1\n", ":3: bind is given twice (first on line 1)"),
        ("stub", "workers: [\n", ":2: is not YAML"),
        ("stub", "workers: \udcff", "is not UTF-8 text"),
        (
            "kafka",
            "kafka:\n  brokers: a:1\n  broker: a:1\n",
            ":3: kafka.broker: there is no such setting; did you mean",
        ),
        ("kafka", "kafka:\n  brokers: a:1\n  brokers: b:1\n", ":3: kafka.brokers is given twice"),
        ("kafka", "kafka: {brokers: a, username: u}", "the settings of the driver 'kafka': username needs a password"),
        ("kafka", "kafka:\n", "--set kafka.brokers (KAFKA_BROKERS): field required"),
    ],
)
def test_a_mistake_in_the_file_is_said_with_its_line(tmp_path: Path, driver: str, text: str, says: str) -> None:
    path = tmp_path / "settings.yaml"
    path.write_bytes(text.encode(errors="surrogateescape"))
    told = refusal("--config", path, driver=driver)
    assert says in told
    assert not says.startswith(":") or f"{path}{says}" in told


def test_a_mistake_in_the_environment_is_said_with_its_variable() -> None:
    assert refusal(BUS_WORKERS="99").startswith("BUS_WORKERS: input should be less than")
    assert refusal(BUS_CONFIG="/nowhere").startswith("BUS_CONFIG /nowhere cannot be read")
    kafka = {"driver": "kafka", "KAFKA_BROKERS": "a:1"}
    assert refusal(**kafka, KAFKA_PRODUCE_TIMEOUT="0").startswith("KAFKA_PRODUCE_TIMEOUT: input should be greater")
    assert refusal(**kafka, KAFKA_CONFIG="x").startswith("KAFKA_CONFIG: must be JSON")


def test_a_mistake_on_the_command_line_is_said_with_its_flag() -> None:
    assert refusal("--workers", "0", BUS_WORKERS="1").startswith("--workers: input should be greater")
    told = refusal("--set", "kafka.brokers=a:1", "--set", "kafka.toopic=x", driver="kafka")
    assert told == "--set kafka.toopic: there is no such setting; did you mean 'topic'?"


def test_the_environment_of_a_driver_wins_over_the_file(tmp_path: Path) -> None:
    path = tmp_path / "settings.yaml"
    path.write_text("kafka:\n  brokers: a:1\n  produce_timeout: 0\n")
    told = refusal("--config", path, driver="kafka", KAFKA_PRODUCE_TIMEOUT="0")
    assert told.startswith("KAFKA_PRODUCE_TIMEOUT: input should be greater")
    (tmp_path / "KAFKA_PRODUCE_TIMEOUT").write_text("0")
    told = refusal("--config", path, "--secrets-dir", tmp_path, driver="kafka")
    assert told.startswith(f"{tmp_path}/KAFKA_PRODUCE_TIMEOUT: input should be greater")


@pytest.mark.parametrize(
    ("assignments", "says"),
    [
        (["kafka.config={}", "kafka.config.a=b"], "--set kafka.config and --set kafka.config.a both set config"),
        (["kafka.config.a=b", "kafka.config={}"], "--set kafka.config.a and --set kafka.config both set config"),
        (["kafka.brokers=x", "kafka.brokers.y=z"], "--set kafka.brokers and --set kafka.brokers.y both set brokers"),
        (["kafka.config=x"], "--set kafka.config: must be JSON"),
    ],
)
def test_assignments_that_contradict_each_other_are_one_sentence(assignments: list[str], says: str) -> None:
    options = [option for assignment in assignments for option in ("--set", assignment)]
    assert refusal(*options, driver="kafka").startswith(says)


def test_a_second_driver_is_said_with_what_says_it(tmp_path: Path) -> None:
    (tmp_path / "bus.yaml").write_text(
        "apiVersion: channels.knative.dev/v1alpha1\nkind: Bus\nmetadata: {name: demo}\nspec: {driver: stub}\n"
    )
    config = tmp_path / "settings"
    config.write_text("driver: kafka\n")
    for options, env, says in (
        (["--driver", "kafka"], {}, "--driver is 'kafka'"),
        ([], {"BUS_DRIVER": "kafka"}, "BUS_DRIVER is 'kafka'"),
        (["--config", config], {}, f"{config}:1: driver is 'kafka'"),
    ):
        assert says in run_bus("run", "--manifests", tmp_path, *options, env=env).stderr


@pytest.mark.parametrize("driver", ["stub", "kafka"])
def test_a_folder_of_secrets_that_is_not_there_is_refused(tmp_path: Path, driver: str) -> None:
    missing = tmp_path / "secrets"
    assert refusal("--secrets-dir", missing, driver=driver).startswith(f"--secrets-dir {missing}: there is no such")
    told = refusal(driver=driver, BUS_SECRETS_DIR=str(missing))
    assert told.startswith(f"BUS_SECRETS_DIR {missing}: there is no such folder")


def test_a_secret_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    options = ("--secrets-dir", tmp_path, "--set", "kafka.brokers=a:1")
    secret = tmp_path / "KAFKA_PASSWORD"
    secret.symlink_to(tmp_path / "nowhere")
    assert refusal(*options, driver="kafka") == f"{secret} cannot be read: No such file or directory"
    secret.unlink()
    secret.mkdir()
    assert refusal(*options, driver="kafka") == f"{secret} cannot be read: Is a directory"
    secret.rmdir()
    secret.write_bytes(b"\xff")
    assert refusal(*options, driver="kafka") == f"{secret} is not UTF-8 text"
    secret.rename(tmp_path / "KAFKA_QUEUE_BYTES").write_text("few")
    assert refusal(*options, driver="kafka").startswith(
        f"{tmp_path}/KAFKA_QUEUE_BYTES: input should be a valid integer"
    )


def test_a_secret_with_a_mistyped_name_is_refused(tmp_path: Path) -> None:
    (tmp_path / "KAFKA_PASWORD").write_text("x")
    options = ("--secrets-dir", tmp_path, "--set", "kafka.brokers=a:1")
    told = refusal(*options, driver="kafka")
    assert told == f"{tmp_path}/KAFKA_PASWORD: there is no such setting; did you mean 'KAFKA_PASSWORD'?"
    assert "Traceback" not in refusal("--secrets-dir", tmp_path, "--bind", "nonsense"), "kafka's are nothing to stub"


def test_one_address_for_both_ports_is_said() -> None:
    address = f"127.0.0.1:{free_port()}"
    told = refusal("--bind", address, "--admin-bind", address)
    assert told == f"--bind {address} and --admin-bind {address} are the same address: give each its own port"
    everywhere = address.replace("127.0.0.1", "0.0.0.0")
    assert refusal("--bind", everywhere, BUS_ADMIN_BIND=address).startswith(f"--bind {everywhere} and BUS_ADMIN_BIND")


def test_a_mistyped_variable_is_warned_of_and_others_are_not() -> None:
    env = {"BUS_WORKRES": "2", "BUS_LOGLEVEL": "debug", "BUS_PORT": "tcp://x", "BUS_SERVICE_HOST": "x", "BUS_NAME": "n"}
    lines = run_bus("run", "--manifests", "/nowhere", env=env).stderr.splitlines()
    assert [json.loads(line)["event"] for line in lines[:-1]] == [
        "BUS_LOGLEVEL is not a setting and is ignored; did you mean BUS_LOG_LEVEL?",
        "BUS_WORKRES is not a setting and is ignored; did you mean BUS_WORKERS?",
    ]
    assert lines[-1].startswith("Error: ")


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
