"""The rules of the house that no linter knows."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.house.sources import PRODUCT, python_files
from tests.house.wide import wide_classes
from tests.support import ROOT

CODE = [path for path in python_files("bus_core", "plugins", "tests") if path.name != "conftest.py"]
MOST_LINES = 300
LONGEST_FIRST_LINE = 120


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
    assert len(lines) <= MOST_LINES, f"{len(lines)} lines; past {MOST_LINES} it is two files"


@pytest.mark.parametrize("path", PRODUCT, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_first_line_is_one_sentence(path: Path) -> None:
    first = path.read_text().splitlines()[0]
    assert len(first) <= LONGEST_FIRST_LINE
    assert first.startswith('"""')
    assert first.removesuffix('"""').endswith("."), f"a first line ends with a period: {first}"


@pytest.mark.parametrize("path", PRODUCT, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_class_is_not_wide_or_says_why(path: Path) -> None:
    assert list(wide_classes(path)) == []


def rooms() -> list[str]:
    """Every folder of bus_core that holds code, as the architecture page writes it."""
    folders = {path.parent.relative_to(ROOT / "bus_core") for path in python_files("bus_core")}
    return sorted(f"{folder.as_posix()}/" for folder in folders if folder.parts)


@pytest.mark.parametrize("room", rooms())
def test_the_architecture_page_names_each_room(room: str) -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    assert re.search(rf"(?<![\w/]){re.escape(room)}", text) or f"bus_core/{room}" in text, f"{room} is missing"


def test_there_are_rooms_to_name() -> None:
    assert {"model/", "data_plane/delivery/", "control_plane/sources/folder/"} <= set(rooms())


TWO_DECORATORS = """
import dataclasses

{comment}
@dataclasses.dataclass
class Wide:
{fields}
"""
FIELDS = "\n".join(f"    field{n}: int" for n in range(9))


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("class A:\n    def __init__(self, a, b, c, d, e, f, g, h): ...", 0),
        ("class A:\n    def __init__(self, a, b, c, d, e, f, g, h, i): ...", 1),
        ("class A:\n    def __init__(self, a, b, *c, d, e, f, g, h, **i): ...", 1),
        ("# wide: nine are the protocol's\nclass A:\n    def __init__(self, a, b, c, d, e, f, g, h, i): ...", 0),
        ("# wide:\nclass A:\n    def __init__(self, a, b, c, d, e, f, g, h, i): ...", 1),
        ("# wide: no longer so\nclass A:\n    def __init__(self, a): ...", 1),
        ("class A:\n    def f(self):\n" + "".join(f"        self.a{n} = 1\n" for n in range(12)), 0),
        ("class A:\n    def f(self):\n" + "".join(f"        self.a{n} = 1\n" for n in range(13)), 1),
        ("class A:\n    def f(self):\n        " + ", ".join(f"self.a{n}" for n in range(13)) + " = x", 1),
        (f"from typing import NamedTuple\nclass A(NamedTuple):\n{FIELDS}", 1),
        (TWO_DECORATORS.format(comment="", fields=FIELDS), 1),
        (TWO_DECORATORS.format(comment="# wide: one row of the table", fields=FIELDS), 0),
        (TWO_DECORATORS.format(comment="", fields=FIELDS.replace("8: int", "8: int = field(init=False)")), 0),
        (f"class A:\n{FIELDS}", 0),
    ],
)
def test_a_wide_class_is_found(tmp_path: Path, text: str, count: int) -> None:
    path = tmp_path / "snippet.py"
    path.write_text(text)
    assert len(list(wide_classes(path))) == count


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
