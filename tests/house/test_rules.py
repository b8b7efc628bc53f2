"""The rules of the house that no linter knows."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.support import ROOT

CODE = sorted(
    path
    for folder in ("bus_core", "plugins", "tests")
    for path in (ROOT / folder).rglob("*.py")
    if ".venv" not in path.parts and path.name != "conftest.py"
)


def tracked() -> list[Path]:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("this is no git checkout")
    return [ROOT / name for name in listed.stdout.splitlines() if (ROOT / name).is_file()]


@pytest.mark.parametrize("path", CODE, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_says_what_it_is_for_and_is_not_two(path: Path) -> None:
    lines = path.read_text().splitlines()
    assert lines, "an empty file has no purpose"
    assert lines[0].startswith(('"""', "#")), "the first line says what the file is for"
    assert len(lines) <= 400, "past 400 lines it is two files"


def test_no_tracked_file_names_a_registry_or_a_place_on_one_machine() -> None:
    registries = ["pypi" + ".org", "pythonhosted" + ".org", "registry.npm" + "js", "proxy.golang" + ".org"]
    # A flag that keeps an index out of a file may be named.
    flags = ["(?<!no-emit-)index" + "-url", "extra-" + "index"]
    pattern = re.compile("|".join([*map(re.escape, registries), *flags, r"(?<![\w.-])/(work|root|farm)/"]))
    for path in tracked():
        found = pattern.search(path.read_text(errors="replace"))
        assert found is None, f"{path.relative_to(ROOT)} names {found[0] if found else ''}"


def test_the_lock_file_is_ignored() -> None:
    assert "uv.lock" in (ROOT / ".gitignore").read_text().splitlines()
    assert not [path for path in tracked() if path.name == "uv.lock"]


def test_every_pin_has_a_hash() -> None:
    pins = re.split(r"^(?=[a-z0-9])", (ROOT / "constraints.txt").read_text(), flags=re.MULTILINE | re.IGNORECASE)
    pins = [pin for pin in pins if "==" in pin.partition("\n")[0]]
    assert len(pins) > 30
    assert all("--hash=sha256:" in pin for pin in pins)
