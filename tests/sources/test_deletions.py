"""What the folder source deletes, what it does not, and that it says so."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from pathlib import Path
from unittest.mock import Mock

import pytest

from bus_core.control_plane.sources.folder import deletion, source
from tests.sources.watcher import channel, watching, write
from tests.support import wait_for


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever sees what a look brought sees what it deleted."""
    monkeypatch.setattr(deletion, "SECOND_LOOK", 0.0)


def put(path: Path, *objects: object) -> None:
    """Write a file in one step: between two it would be empty."""
    write(path.with_suffix(".new"), *objects)
    path.with_suffix(".new").replace(path)


def said(caplog: pytest.LogCaptureFixture, message: str) -> list[tuple[str, ...]]:
    """What was logged beside a message."""
    found = [vars(record) for record in caplog.records if record.getMessage() == message]
    return [tuple(str(record[name]) for name in ("resource", "folder", "file") if name in record) for record in found]


def warned(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records]


def test_a_mistyped_group_deletes_nothing(folder: Path, tmp_path: Path) -> None:
    write(folder / "a.yaml", channel("a"))
    write(folder / "b.yaml", channel("b"))
    with watching(folder, tmp_path / "state") as watcher:
        put(folder / "a.yaml", channel("a") | {"apiVersion": "channel.knative.dev/v1alpha1"})
        (folder / "b.yaml").unlink()
        put(folder / "c.yaml", channel("c"))
        wait_for(lambda: watcher.channel("c"))
        assert watcher.channel("a")
        assert watcher.channel("b")


def test_a_deletion_is_told_once_with_name_and_place(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Also one that nobody may have meant: a file that was emptied, a resource in another namespace than before."""
    write(folder / "a.yaml", channel("a"))
    write(folder / "b.yaml", channel("b"))
    write(folder / "c.yaml", channel("c"))
    with watching(folder, tmp_path / "state") as watcher, caplog.at_level(logging.INFO):
        a = watcher.channel("a")
        assert a is not None
        watcher.source.add_finalizer(a, "f")
        (folder / "a.yaml").write_text("")
        moved = channel("b")
        moved["metadata"]["namespace"] = "other"
        put(folder / "b.yaml", moved)
        wait_for(lambda: (c := watcher.channel("a")) and c.deleted and watcher.channel("b") is None)
        put(folder / "d.yaml", channel("d"))
        wait_for(lambda: watcher.channel("d"))
        told = sorted(said(caplog, "deleted, because it is missing from the folder"))
        assert told == [
            ("Channel default/a", str(folder), str(folder / "a.yaml")),
            ("Channel default/b", str(folder), str(folder / "b.yaml")),
        ]


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        (
            lambda folder: (folder / "a.yaml").unlink(),
            "contains no manifest now; its resources stay: only --allow-empty",
        ),
        (lambda folder: (folder / "a.yaml").write_text(""), "contains no manifest now"),
        (lambda folder: folder.rename(folder.with_name("aside")), "is missing; its resources stay: restore the folder"),
    ],
    ids=["empty", "truncated", "gone"],
)
def test_a_folder_that_holds_nothing_any_more_is_told_once(
    folder: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    edit: Callable[[Path], object],
    says: str,
) -> None:
    monkeypatch.setattr(source, "_RESCAN", 0.0)
    monkeypatch.setattr(source, "_RESCAN_SHARE", math.inf)
    write(folder / "a.yaml", channel("a"))
    with watching(folder, tmp_path / "state") as watcher, caplog.at_level(logging.WARNING):
        edit(folder)
        wait_for(lambda: warned(caplog))
        looks = Mock(wraps=watcher.source._scan.changed)
        monkeypatch.setattr(watcher.source._scan, "changed", looks)
        wait_for(lambda: looks.call_count > 2, what="further looks")
        assert watcher.channel("a")
        assert len(warned(caplog)) == 1
        assert says in warned(caplog)[0]
        assert said(caplog, warned(caplog)[0]) == [(str(folder),)]


def test_what_is_kept_because_another_file_is_broken_is_told(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(folder / "a.yaml", channel("a"))
    write(folder / "b.yaml", channel("b"))
    with watching(folder, tmp_path / "state") as watcher, caplog.at_level(logging.WARNING):
        put(folder / "b.yaml", {"kind": "Channel"})
        wait_for(lambda: warned(caplog))
        put(folder / "c.yaml", channel("c"))
        wait_for(lambda: watcher.channel("c"))
        assert warned(caplog) == ["a manifest is invalid; its last valid resource stays"]
        (folder / "a.yaml").unlink()
        wait_for(lambda: [text for text in warned(caplog) if "they stay as long as a file in it is broken" in text])
        assert watcher.channel("a")


def test_nothing_is_kept_of_what_was_deleted(folder: Path, tmp_path: Path) -> None:
    with watching(folder, tmp_path / "state", allow_empty=True) as watcher:
        for name in ("a", "b", "c"):
            put(folder / "channel.yaml", channel(name))
            found = wait_for(lambda name=name: watcher.channel(name))  # type: ignore[misc]
            assert found is not None
            watcher.source.record_event(found, "ErrResourceSync", "it is there", warning=True)
        wait_for(lambda: len(watcher.now) == 1)
        reporter = watcher.source._reporter
        wait_for(lambda: (len(reporter), len(reporter.events)) == (1, 1), what="only the last is kept")
