"""The oldest allowed versions are read right: a wrong reading would let `make test-lowest` test the newest."""

from __future__ import annotations

import tomllib

from tests.house import lowest
from tests.support import ROOT


def test_every_dependency_has_a_lowest_version() -> None:
    found = lowest.minimums()
    for path in lowest.PROJECTS:
        for line in tomllib.loads(path.read_text())["project"]["dependencies"]:
            assert line == "bus-core" or line.split(">=")[0] in found
    assert found["gunicorn"] == "27"
    assert "uvloop" in found
    assert "confluent-kafka" in found


def test_the_pins_are_those_of_the_packages_that_no_project_names() -> None:
    names = {line.partition("==")[0] for line in lowest.pins()}
    assert {"pytest", "certifi"} <= names
    assert not names & (lowest.minimums().keys() | {"pydantic-core"})


def test_an_installed_version_is_compared_with_the_bound() -> None:
    assert lowest.parts("34.0.0") == lowest.parts("34")
    assert lowest.parts("2.10") > lowest.parts("2.9.1")
    found = lowest.misses()  # make test-lowest is what expects none
    pinned = (ROOT / "constraints.txt").read_text()
    newest = pinned.split("\nclick==")[1].split(" ")[0]
    assert f"click: pyproject.toml allows {lowest.minimums()['click']}, and {newest} is installed" in found
