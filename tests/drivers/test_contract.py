"""Every refusal of a driver: one sentence that names the cure, exit code 2, no traceback."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.packages import make_package
from tests.support import QUICKSTART
from tests.zygote import run_bus

GOOD = """
from bus_core import hookimpl

class Bus:
    api = 1

    def __init__(self, context):
        pass

    @hookimpl
    def provision(self, channel, parameters):
        pass

    @hookimpl
    def unprovision(self, channel):
        pass

    @hookimpl
    def subscribe(self, channel, subscription):
        pass

    @hookimpl
    def unsubscribe(self, subscription):
        pass

    @hookimpl
    def receive(self, channel, message):
        pass
"""

BROKEN = [
    ("another api", ("api = 1", "api = 2"), ["api 2", "this host has api 1"]),
    ("no api", ("    api = 1\n", ""), ["declares no api", "`api = 1`"]),
    (
        "a missing hook",
        ("    @hookimpl\n    def unsubscribe(self, subscription):\n        pass\n", ""),
        ["unsubscribe"],
    ),
    ("a misspelt hook", ("def unprovision", "def unprovison"), ["unprovison", "did you mean 'unprovision'"]),
    (
        "a misspelt argument",
        ("(self, channel, message)", "(self, chanel, message)"),
        ["'chanel'", "did you mean 'channel'"],
    ),
    ("an argument that no hook has", ("(self, subscription)", "(self, subscription, colour)"), ["'colour'"]),
    ("no @hookimpl", ("    @hookimpl\n    def receive", "    def receive"), ["receive", "lacks @hookimpl"]),
    ("an async resource hook", ("def provision", "async def provision"), ["provision", "async def", "plain def"]),
    (
        "an import that fails",
        ("from bus_core", "import nowhere_to_be_found\nfrom bus_core"),
        ["cannot be imported", "nowhere"],
    ),
    ("parameters of another type", ("api = 1", "api = 1\n    parameters = ['a']"), ["bus_core.Parameter"]),
    ("settings of another type", ("api = 1", "api = 1\n    settings = dict"), ["bus_core.DriverSettings"]),
]


def run_driver(name: str, site: Path, tmp_path: Path) -> subprocess.CompletedProcess[str]:
    state = str(tmp_path / "state")
    return run_bus(
        "run", "--manifests", str(QUICKSTART), "--driver", name, "--state-dir", state, env={"PYTHONPATH": str(site)}
    )


def refused(result: subprocess.CompletedProcess[str], fragments: list[str]) -> None:
    assert result.returncode == 2, result.stderr
    assert "Traceback" not in result.stderr
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1, result.stderr
    for fragment in fragments:
        assert fragment in lines[0]


@pytest.mark.parametrize(
    ("change", "fragments"), [(case[1], case[2]) for case in BROKEN], ids=[case[0] for case in BROKEN]
)
def test_a_broken_driver_is_refused(change: tuple[str, str], fragments: list[str], tmp_path: Path) -> None:
    assert change[0] in GOOD
    source = GOOD.replace(*change)
    site = make_package(tmp_path / "site", "broken-bus", source, driver="broken", value="broken_bus:Bus")
    refused(run_driver("broken", site, tmp_path), [*fragments, "'broken'"])


def test_an_entry_point_that_names_no_class_is_refused(tmp_path: Path) -> None:
    site = make_package(tmp_path / "site", "broken-bus", "Bus = 3", driver="broken", value="broken_bus:Bus")
    refused(run_driver("broken", site, tmp_path), ["must name the driver class"])


def test_a_driver_that_is_not_installed_is_refused_with_those_that_are(tmp_path: Path) -> None:
    refused(run_driver("rabbit", tmp_path, tmp_path), ["'rabbit' is not installed", "stub", "pip install"])


def test_two_packages_that_claim_one_name_are_refused(tmp_path: Path) -> None:
    make_package(tmp_path / "site", "first-bus", GOOD, driver="same", value="first_bus:Bus")
    site = make_package(tmp_path / "site", "second-bus", GOOD, driver="same", value="second_bus:Bus")
    refused(run_driver("same", site, tmp_path), ["first-bus", "second-bus", "uninstall all but one"])


def test_a_bus_that_says_another_driver_is_refused(tmp_path: Path) -> None:
    bus = "apiVersion: channels.knative.dev/v1alpha1\nkind: Bus\nmetadata: {name: demo}\nspec: {driver: kafka}\n"
    (tmp_path / "bus.yaml").write_text(bus)
    result = run_bus("run", "--manifests", str(tmp_path), "--driver", "stub")
    refused(result, ["'kafka'", "'stub'", "remove one"])


def test_a_bus_without_any_driver_is_refused_with_those_that_are_installed() -> None:
    refused(run_bus("run", "--manifests", str(QUICKSTART)), ["does not name a driver", "--driver", "stub"])


def test_a_setting_that_the_driver_does_not_have_is_refused() -> None:
    result = run_bus("run", "--manifests", str(QUICKSTART), "--driver", "stub", "--set", "stub.colour=red")
    refused(result, ["'stub' has no settings"])


def test_plugins_lists_a_good_driver_and_says_why_another_is_refused(tmp_path: Path) -> None:
    make_package(tmp_path / "site", "good-bus", GOOD, driver="good", value="good_bus:Bus")
    source = GOOD.replace("api = 1", "api = 7")
    site = make_package(tmp_path / "site", "old-bus", source, driver="old", value="old_bus:Bus")
    listed = run_bus("plugins", env={"PYTHONPATH": str(site)}).stdout
    assert "good  (good-bus 1.0)  A test driver" in listed
    assert "refused: driver 'old'" in listed
