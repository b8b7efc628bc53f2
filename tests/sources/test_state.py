"""The state directory: its rights, its database, and what it takes over from an older version."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import stat
import threading
from pathlib import Path
from typing import Any

import pytest

from bus_core.control_plane.sources.folder import scan, takeover
from bus_core.control_plane.sources.folder.manifests import File, read_file
from bus_core.control_plane.sources.folder.source import ManifestSource
from bus_core.control_plane.sources.folder.state import StateDirectory
from bus_core.model.conditions import Condition
from bus_core.model.errors import ConfigurationError, TemporaryError
from tests.sources.watcher import BUS, channel, watching, write
from tests.support import manifest, stored, wait_for


def modes(directory: Path) -> dict[str, int]:
    return {path.name: stat.S_IMODE(path.stat().st_mode) for path in (directory, *directory.iterdir())}


def old_state(directory: Path, *objects: dict[str, Any], origin: str) -> None:
    """A state directory as versions before the database wrote it, one JSON file a resource."""
    (directory / "resources").mkdir(parents=True)
    (directory / "resources.lock").touch()
    for found in objects:
        metadata = found["metadata"]
        path = directory / "resources" / f"{found['kind']}.{metadata['namespace']}.{metadata['name']}.json"
        path.write_text(json.dumps({"version": 1, "origin": origin, "object": found}))


def old_object(name: str, **metadata: Any) -> dict[str, Any]:
    found = channel(name)
    found["metadata"] |= {"uid": f"uid-{name}", "generation": 3, "resourceVersion": "7"} | metadata
    found["status"] = {"conditions": [{"type": "Provisioned", "status": "True"}], "observedGeneration": 3}
    return found


def test_only_this_user_may_read_the_state(folder: Path, tmp_path: Path) -> None:
    write(folder / "a.yaml", channel("a"))
    state = tmp_path / "home" / "bus-core" / "state"
    with watching(folder, state):
        found = modes(state)
        assert found.pop("state") == 0o700
        assert {"state.db", "state.db-wal", "state.db-shm"} <= found.keys()
        assert set(found.values()) == {0o600}
    assert modes(state.parent)["bus-core"] == 0o700, "what was missing above it too"


def test_a_looser_state_directory_of_ours_is_tightened_and_another_is_left(folder: Path, tmp_path: Path) -> None:
    ours, shared = tmp_path / "ours", tmp_path / "shared"
    for directory in (ours, shared):
        StateDirectory(directory, folder)
        directory.chmod(0o755)
        (directory / "state.db").chmod(0o644)
    (shared / "notes.txt").touch()
    for directory in (ours, shared):
        StateDirectory(directory, folder)
        assert modes(directory)["state.db"] == 0o600
    assert modes(ours)["ours"] == 0o700
    assert modes(shared)["shared"] == 0o755


@pytest.mark.parametrize(
    "spec",
    [
        {"subscriber": "https://me:s3cret@x/"},
        {"subscriber": "ftp://me:s3cret@x/"},
        {"subscriber": "me:s3cret@x"},
        {"subscriber": "x", "replyTo": "http://me:s3cret@x y/"},
        {"subscriber": "x", "delivery": {"deadLetterSink": "https://me:s3cret@x/#f"}},
    ],
)
def test_a_password_in_a_destination_is_stored_nowhere(
    folder: Path, tmp_path: Path, spec: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    write(folder / "a.yaml", channel("a"), manifest("Subscription", "s", channel="a", subscriber="before"))
    with watching(folder, tmp_path / "state") as watcher:
        write(folder / "a.yaml", channel("a"), manifest("Subscription", "s", channel="a", **spec))
        told = wait_for(lambda: [vars(one).get("detail", "") for one in caplog.records if "is invalid" in one.msg])
        assert "a.yaml:" in told[0]
        assert stored(tmp_path / "state")["Subscription/s"]["spec"]["subscriber"] == "before"
        assert len(watcher.now) == 2
        for path in (tmp_path / "state").iterdir():
            assert b"s3cret" not in path.read_bytes()
    assert "s3cret" not in caplog.text


def test_a_path_with_an_at_sign_is_no_password(folder: Path, tmp_path: Path) -> None:
    good = manifest("Subscription", "s", channel="a", subscriber="http://x/@scope/name?mail=a@b")
    write(folder / "a.yaml", channel("a"), good)
    with watching(folder, tmp_path / "state"):
        assert stored(tmp_path / "state")["Subscription/s"]["spec"] == good["spec"]


def test_an_older_state_is_taken_over_whole(folder: Path, tmp_path: Path) -> None:
    write(folder / "a.yaml", channel("a"), channel("b"))
    gone = old_object("gone", finalizers=["bus-core/demo"], deletionTimestamp="2026-01-01T00:00:00Z")
    held = old_object("a", finalizers=["bus-core/demo"])
    old_state(tmp_path / "state", held, gone, origin=str(folder / "a.yaml"))
    (tmp_path / "state" / "resources" / "Channel.default.b.json").write_text('{"version": 1, "obj')
    with watching(folder, tmp_path / "state") as watcher:
        a, b, last = (watcher.channel(name) for name in ("a", "b", "gone"))
        assert a is not None
        assert last is not None
        assert b is not None, "a damaged file takes nothing along"
        assert (a.uid, a.metadata.generation, a.metadata.resource_version) == ("uid-a", 3, "7")
        assert a.metadata.finalizers == last.metadata.finalizers == ("bus-core/demo",)
        assert a.shows("Provisioned")
        assert last.deleted
    assert {path.name for path in (tmp_path / "state").iterdir()} == {"state.db"}


def test_a_password_in_an_older_state_is_not_taken_over(folder: Path, tmp_path: Path) -> None:
    subscription = manifest("Subscription", "s", channel="a", subscriber="https://me:s3cret@x/")
    subscription["metadata"] |= {"uid": "u", "resourceVersion": "1"}
    old_state(tmp_path / "state", subscription, origin="a.yaml")
    StateDirectory(tmp_path / "state", folder)
    assert stored(tmp_path / "state")["Subscription/s"]["spec"]["subscriber"] == "https://...@x/"
    assert b"s3cret" not in (tmp_path / "state" / "state.db").read_bytes()


class Crash(BaseException):
    """The process dies here."""


@pytest.mark.parametrize("point", ["in the transaction", "before the old files are removed"])
def test_a_crash_while_an_older_state_is_taken_over_loses_nothing(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    state = tmp_path / "state"
    old_state(state, old_object("a"), old_object("b"), origin="a.yaml")

    def crash(*_: object, **__: object) -> None:
        raise Crash

    with monkeypatch.context() as patched, pytest.raises(Crash):
        patched.setattr(takeover, "manifest_digest" if point == "in the transaction" else "sync_directory", crash)
        StateDirectory(state, folder)
    assert len(list((state / "resources").glob("*.json"))) == 2
    StateDirectory(state, folder)
    assert [found["metadata"]["uid"] for found in stored(state).values()] == ["uid-a", "uid-b"]
    assert not (state / "resources").exists()


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda path: path.write_bytes(b"no database" * 1000), "is damaged"),
        (lambda path: path.write_bytes(path.read_bytes()[:4096] + b"\xff" * 20_000), "is damaged"),
        (lambda path: path.unlink() or path.mkdir(), "cannot be used"),
    ],
    ids=["another file", "overwritten", "a folder"],
)
def test_a_database_that_cannot_be_used_names_the_cure(folder: Path, tmp_path: Path, damage: Any, says: str) -> None:
    write(folder / "a.yaml", *(channel(f"c{number}") for number in range(20)))
    with watching(folder, tmp_path / "state"):
        pass
    damage(tmp_path / "state" / "state.db")
    with pytest.raises(ConfigurationError, match=says) as refused:
        ManifestSource(folder, BUS, state_dir=tmp_path / "state")
    assert "move it away" in str(refused.value) or "--state-dir" in str(refused.value)


def test_a_database_of_a_newer_version_is_left_alone(folder: Path, tmp_path: Path) -> None:
    StateDirectory(tmp_path / "state", folder)
    with contextlib.closing(sqlite3.connect(tmp_path / "state" / "state.db")) as database:
        database.execute("PRAGMA user_version = 99")
    with pytest.raises(ConfigurationError, match="version 99, but this bus-core knows version 1: install"):
        StateDirectory(tmp_path / "state", folder)


def test_a_full_disk_is_trouble_that_passes(folder: Path, tmp_path: Path) -> None:
    write(folder / "a.yaml", channel("a"))
    with watching(folder, tmp_path / "state") as watcher:
        one = watcher.channel("a")
        assert one is not None
        with watcher.source._state.exclusive() as connection:
            pages = connection.execute("PRAGMA page_count").fetchone()[0]
            connection.execute(f"PRAGMA max_page_count = {pages}")
        write(folder / "b.yaml", *(channel(f"b{number}") for number in range(50)))
        wait_for(lambda: [text for text in watcher.source.problems() if "cannot be read: database or disk" in text])
        with pytest.raises(TemporaryError, match="disk is full"):
            watcher.source.write_conditions(one, [Condition("Ready", "True", message="x" * 100_000)])
        assert watcher.channel("a") == one
        with watcher.source._state.exclusive() as connection:
            connection.execute("PRAGMA max_page_count = 1000000")
        wait_for(lambda: len(watcher.now) == 51)
        assert watcher.source.problems() == []


def test_many_threads_write_and_every_write_is_there(folder: Path, tmp_path: Path) -> None:
    write(folder / "a.yaml", *(channel(f"c{number}") for number in range(8)))
    with watching(folder, tmp_path / "state") as watcher:
        channels = list(watcher.now.values())

        def work(number: int) -> None:
            for one in channels:
                watcher.source.add_finalizer(one, f"f{number}")
                watcher.source.write_conditions(one, [Condition(f"T{number}", "True")])

        threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        for one in watcher.now.values():
            assert set(one.metadata.finalizers) == {f"f{number}" for number in range(8)}
            assert {condition.type for condition in one.conditions} == {f"T{number}" for number in range(8)}
            found = stored(tmp_path / "state")[f"Channel/{one.name}"]
            assert found["metadata"]["resourceVersion"] == one.metadata.resource_version == "17"


def test_only_files_that_have_changed_are_read(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither by the process that read them, nor by the next one."""
    for number in range(20):
        write(folder / f"{number}.yaml", channel(f"c{number}"))
    monkeypatch.setattr(scan, "GRANULE", 0.0)
    read: list[str] = []

    def recording(path: Path) -> File:
        read.append(path.name)
        return read_file(path)

    monkeypatch.setattr(scan, "read_file", recording)
    for expected in (20, 0):
        with watching(folder, tmp_path / "state") as watcher:
            assert len(watcher.now) >= 20
            assert len(read) == expected
            read.clear()
            write(folder / "7.yaml", channel("c7"), channel(f"late{expected}"))
            wait_for(lambda expected=expected: watcher.channel(f"late{expected}"))  # type: ignore[misc]
            assert set(read) == {"7.yaml"}
            read.clear()


def test_a_state_that_is_removed_under_a_running_bus_deletes_nothing(folder: Path, tmp_path: Path) -> None:
    write(folder / "a.yaml", channel("a"))
    with watching(folder, tmp_path / "state") as watcher:
        a = watcher.channel("a")
        (tmp_path / "state" / "state.db").unlink()
        wait_for(lambda: [text for text in watcher.source.problems() if "restart the bus" in text])
        write(folder / "b.yaml", channel("b"))
        wait_for(lambda: watcher.channel("b"))
        assert watcher.channel("a") == a
        assert not [change for change in watcher.changes if change.resource is None]
