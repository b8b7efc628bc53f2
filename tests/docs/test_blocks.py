"""Runs every code block of the documentation, in page order, as a reader would; see `tests.docs.reader`."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.reader import SERVED, Reader, blocks
from tests.support import ROOT

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
SKIPS = {
    ("performance.md", "takes a quarter of an hour; a benchmark is no test"),
    ("release.md", "takes half an hour"),
    ("release.md", "installs from a package index; make e2e does the same"),
    ("release.md", "publishes"),
    ("README.md", "runs the whole suite; .ci/run and the tests of the demo do it"),
}


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    made = Reader(tmp_path / "reader")
    try:
        yield made
    finally:
        made.close()


@pytest.mark.parametrize(
    "page",
    [page for page in PAGES if blocks(page) and page.name not in SERVED],
    ids=lambda page: str(page.relative_to(ROOT)),
)
def test_the_blocks_of_a_page_run_in_order(page: Path, reader: Reader) -> None:
    reader.follow(page)


def test_what_is_skipped_is_known() -> None:
    assert {(page.name, block.skip) for page in PAGES for block in blocks(page) if block.skip} == SKIPS


def test_the_pages_that_need_servers_exist() -> None:
    assert {page.name for page in PAGES if page.name in SERVED} == set(SERVED)
