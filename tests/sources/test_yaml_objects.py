"""The quick way to read YAML gives what the exact one gives, or leaves the text to it."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from bus_core.control_plane.sources.folder.yaml_objects import UnusualYAMLError, objects, objects_with_lines
from bus_core.model.errors import ManifestError
from tests.support import ROOT

SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8)
DATA = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
)
WORDS = [
    "a",
    "b: 1",
    "- ",
    ": ",
    "y",
    "no",
    "0o7",
    "012",
    "1e3",
    ".inf",
    "2026-01-01",
    "~",
    "'y'",
    '"\\x41"',
    "\n",
    "  ",
]
WORDS += [
    "---\n",
    "...\n",
    "&x ",
    "*x",
    "!!str ",
    "! ",
    "[",
    "]",
    "{",
    "}",
    ", ",
    "? ",
    "<<: ",
    "# c\n",
    "| \n",
    "> \n",
    "=",
]


def exact(text: str) -> list[Any]:
    return [data for data, _ in objects_with_lines(Path("a.yaml"), text)]


@settings(max_examples=300, deadline=None)
@given(data=st.lists(DATA, max_size=2), style=st.sampled_from([None, True, False]))
def test_what_was_dumped_is_read_alike(data: list[Any], style: bool | None) -> None:
    text = yaml.safe_dump_all(data, default_flow_style=style)
    with contextlib.suppress(UnusualYAMLError):
        assert objects(text) == exact(text)


@settings(max_examples=600, deadline=None)
@given(words=st.lists(st.sampled_from(WORDS), max_size=12))
def test_any_text_is_read_alike_or_left_to_the_exact_way(words: list[str]) -> None:
    text = "".join(words)
    try:
        found = objects(text)
    except UnusualYAMLError:
        return
    assert repr(found) == repr(exact(text))


@pytest.mark.parametrize(
    "text", ["a: &x 1\nb: *x\n", "a: !!str 1\n", "a: 1\na: 2\n", "a: [", "[a]: 1\n", "a: " + "[" * 99]
)
def test_what_only_the_exact_way_judges(text: str) -> None:
    with pytest.raises(UnusualYAMLError):
        objects(text)
    with contextlib.suppress(ManifestError):
        assert exact(text)


def test_the_examples_take_the_quick_way() -> None:
    paths = sorted((ROOT / "examples").rglob("*.yaml"))
    assert paths
    for path in paths:
        assert objects(path.read_text()) == exact(path.read_text())
