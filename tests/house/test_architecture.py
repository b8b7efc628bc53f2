"""The docs name files that exist; docs/architecture.md also names functions that exist, and the floors as they are."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path

import pytest

from tests.house.sources import PRODUCT, ROOT, python_files

TEXT = (ROOT / "docs" / "architecture.md").read_text()
CONTRACTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
METHOD = r"\b([A-Z][A-Za-z]+)\.(\w+)\b"


def section(heading: str) -> str:
    found = re.search(rf"^## {re.escape(heading)}$(.*?)(?=^## |\Z)", TEXT, re.MULTILINE | re.DOTALL)
    assert found, heading
    return found[1]


def members() -> set[tuple[str, str]]:
    """Each class of the product with its functions and attributes, those of its base classes included."""
    classes: dict[str, tuple[set[str], set[str]]] = {}
    for path in PRODUCT:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef):
                names, bases = classes.setdefault(node.name, (set(), set()))
                names.update(one.name for one in node.body if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef))
                inner = (one for one in ast.walk(node) if isinstance(one, ast.Attribute))
                names.update(one.attr for one in inner if isinstance(one.ctx, ast.Store))
                bases.update(ast.unparse(base) for base in node.bases)
    return {
        (name, member)
        for name, (names, bases) in classes.items()
        for member in names.union(*(classes[base][0] for base in bases if base in classes))
    }


MEMBERS = members()


@pytest.mark.parametrize("named", sorted(set(re.findall(METHOD, TEXT))), ids=".".join)
def test_a_function_that_the_page_names_exists(named: tuple[str, str]) -> None:
    assert named in MEMBERS


def test_a_function_that_does_not_exist_is_noticed() -> None:
    assert ("Scheduler", "publish") in MEMBERS
    assert ("Scheduler", "take_for_loop") in MEMBERS  # of its base class
    assert ("Scheduler", "no_such_function") not in MEMBERS


def test_the_drawings_name_functions() -> None:
    for heading, count in (("The way of an event", 25), ("The way of a resource", 20)):
        assert len(set(re.findall(METHOD, section(heading)))) >= count


def test_the_files_of_the_examples_exist() -> None:
    files: list[str] = []
    for row in section("Where does a change belong?").splitlines()[4:]:
        for name in re.findall(r"`([\w/]+\.(?:py|yaml))`", row):
            folder = files[-1].rpartition("/")[0] if files and "/" not in name and name != "telemetry.py" else ""
            files.append(f"{folder}/{name}" if folder else name)
    assert len(files) >= 10
    assert [name for name in files if not (ROOT / "bus_core" / name).is_file()] == []


def test_the_floors_are_those_of_the_import_contract() -> None:
    (layers,) = (one["layers"] for one in CONTRACTS if one["name"].startswith("floors"))
    drawn = section("Floors").split("```text\n")[1].split("```")[0].splitlines()
    floors = [{room.strip().removesuffix(".py").replace("/", ".") for room in line.split("│")} for line in drawn]
    assert floors == [{room.strip().removeprefix("bus_core.") for room in layer.split("|")} for layer in layers]


def test_the_table_names_each_library_and_its_importers() -> None:
    rows = [row for row in section("The rooms of `bus_core/`").splitlines() if row.startswith("| `")]
    for contract in CONTRACTS:
        for library in contract["protected_modules"] if contract["name"].startswith("only ") else ():
            listed = {row.split("`")[1].rstrip("/") for row in rows if library.replace("_", "-") in row.split("|")[3]}
            for importer in contract["allowed_importers"]:
                room = importer.removeprefix("bus_core.").replace(".", "/")
                assert any(one.removesuffix(".py").startswith(room) for one in listed), f"{room} imports {library}"


PAGES = sorted((ROOT / "docs").rglob("*.md"))
FILES = [path.relative_to(ROOT).as_posix() for path in python_files("bus_core", "plugins", "tests")]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_python_file_that_a_page_names_exists(page: Path) -> None:
    named = set(re.findall(r"`([\w/]+\.py)`", page.read_text()))
    assert [name for name in named if not any(f"/{path}".endswith(f"/{name}") for path in FILES)] == []
