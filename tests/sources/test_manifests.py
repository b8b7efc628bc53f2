"""The folder source: what edits of real files do, and what a second process sees."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest
import watchfiles
from hypothesis import given, settings
from hypothesis import strategies as st

from bus_core.control_plane.sources.folder import scan
from bus_core.control_plane.sources.folder.check import check_manifests
from bus_core.control_plane.sources.folder.manifests import list_manifests, read_folder
from bus_core.control_plane.sources.folder.source import ManifestSource
from bus_core.model.conditions import Condition
from bus_core.model.errors import ConfigurationError, TemporaryError
from bus_core.model.resources import Channel
from tests.sources.watcher import BUS, channel, watching, write
from tests.support import ROOT, wait_for


def test_a_change_of_the_spec_counts_a_generation(folder: Path, tmp_path: Path) -> None:
    write(folder / "a.yaml", channel("a"))
    with watching(folder, tmp_path / "state") as watcher:
        before = watcher.channel("a")
        assert before is not None
        assert before.uid
        write(folder / "a.yaml", channel("a", arguments=[{"name": "size", "value": "1"}]))
        after = wait_for(lambda: (c := watcher.channel("a")) and c.spec.arguments and c)
        assert isinstance(after, Channel)
        assert after.uid == before.uid
        assert after.metadata.generation == before.metadata.generation + 1


def test_conditions_and_finalizers_are_kept_and_written_once(folder: Path, tmp_path: Path) -> None:
    write(folder / "a.yaml", channel("a"))
    with watching(folder, tmp_path / "state") as watcher:
        one = watcher.channel("a")
        assert one is not None
        watcher.source.add_finalizer(one, "f")
        watcher.source.write_conditions(one, [Condition("Ready", "True", "Fine")])
        two = wait_for(lambda: (c := watcher.channel("a")) and c.conditions and c)
        assert isinstance(two, Channel)
        assert two.metadata.finalizers == ("f",)
        assert two.conditions[0].last_transition_time
        assert two.observed_generation == 1
        watcher.source.write_conditions(two, [Condition("Ready", "True", "Fine")])
        watcher.source.write_conditions(one, [Condition("Ready", "True", "Fine")])
        assert watcher.channel("a") == two
    with watching(folder, tmp_path / "state") as watcher:
        assert watcher.channel("a") == two


def test_a_write_to_what_has_gone_is_no_write(folder: Path, tmp_path: Path) -> None:
    write(folder / "a.yaml", channel("a"))
    with watching(folder, tmp_path / "state") as watcher:
        one = watcher.channel("a")
        assert one is not None
        write(folder / "a.yaml", channel("b"))
        wait_for(lambda: watcher.channel("a") is None)
        watcher.source.write_conditions(one, [Condition("Ready", "True")])
        watcher.source.remove_finalizer(one, "f")
        with pytest.raises(TemporaryError):
            watcher.source.add_finalizer(one, "f")
        assert watcher.channel("a") is None


def test_a_deleted_resource_waits_for_its_finalizer_and_returns_as_another(folder: Path, tmp_path: Path) -> None:
    write(folder / "a.yaml", channel("a"), channel("b"))
    with watching(folder, tmp_path / "state") as watcher:
        one = watcher.channel("a")
        assert one is not None
        watcher.source.add_finalizer(one, "f")
        write(folder / "a.yaml", channel("b"))
        wait_for(lambda: (c := watcher.channel("a")) and c.deleted)
        write(folder / "a.yaml", channel("a"), channel("b"))
        gone = watcher.channel("a")
        assert gone is not None
        watcher.source.remove_finalizer(gone, "f")
        again = wait_for(lambda: (c := watcher.channel("a")) and not c.deleted and c)
        assert isinstance(again, Channel)
        assert again.uid != one.uid


def test_editors_and_mounts_that_swap_files_delete_nothing(folder: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "v1", tmp_path / "v2"
    for number, version in enumerate((first, second)):
        version.mkdir()
        write(version / "a.yaml", channel("a", arguments=[{"name": "size", "value": str(number)}]))
    (folder / "..data").symlink_to(first)
    (folder / "a.yaml").symlink_to(folder / "..data" / "a.yaml")
    with watching(folder, tmp_path / "state") as watcher:
        one = watcher.channel("a")
        assert one is not None
        (folder / "..new").symlink_to(second)
        (folder / "..new").replace(folder / "..data")
        wait_for(lambda: (c := watcher.channel("a")) and c.spec.arguments == {"size": "1"}, 5)
        write(tmp_path / "temporary", channel("a", arguments=[{"name": "size", "value": "2"}]))
        (folder / "a.yaml").unlink()
        (tmp_path / "temporary").replace(folder / "a.yaml")
        two = wait_for(lambda: (c := watcher.channel("a")) and c.spec.arguments == {"size": "2"} and c)
        assert isinstance(two, Channel)
        assert two.uid == one.uid
        assert not [change for change in watcher.changes if change.resource is None or change.resource.deleted]


def test_a_folder_that_goes_away_and_comes_back_deletes_nothing(folder: Path, tmp_path: Path) -> None:
    write(folder / "a.yaml", channel("a"))
    with watching(folder, tmp_path / "state") as watcher:
        folder.rename(tmp_path / "aside")
        wait_for(lambda: not folder.exists())
        (tmp_path / "aside").rename(folder)
        write(folder / "b.yaml", channel("b"))
        wait_for(lambda: watcher.channel("b"))
        assert watcher.channel("a") is not None
        assert not [change for change in watcher.changes if change.resource is None or change.resource.deleted]


def test_without_a_watch_the_slow_look_sees_it_all(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_watch(*_: object, **__: object) -> None:
        raise OSError("OS file watch limit reached")

    monkeypatch.setattr(watchfiles, "watch", no_watch)
    with watching(folder, tmp_path / "state") as watcher:
        write(folder / "a.yaml", channel("a"))
        wait_for(lambda: watcher.channel("a"))


def test_a_look_that_fails_is_told_and_made_again(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A subfolder may go away while it is read, and a disk may be full for a while."""
    failing = threading.Event()

    def look(path: Path) -> dict[str, str]:
        if failing.is_set():
            raise FileNotFoundError(2, "No such file or directory", "manifests/sub")
        return list_manifests(path)

    monkeypatch.setattr(scan, "list_manifests", look)
    with watching(folder, tmp_path / "state") as watcher:
        failing.set()
        write(folder / "a.yaml", channel("a"))
        wait_for(lambda: [text for text in watcher.source.problems() if "No such file" in text])
        failing.clear()
        wait_for(lambda: watcher.channel("a"))
        assert watcher.source.problems() == []


def test_a_damaged_row_of_the_state_takes_nothing_along(folder: Path, tmp_path: Path) -> None:
    write(folder / "a.yaml", channel("a"), channel("b"))
    with watching(folder, tmp_path / "state"):
        pass
    with contextlib.closing(sqlite3.connect(tmp_path / "state" / "state.db")) as database, database:
        database.execute("""UPDATE resources SET object = '{"kind": "Cha' WHERE name = 'a'""")
    with watching(folder, tmp_path / "state") as watcher:
        assert watcher.channel("b") is not None
        assert wait_for(lambda: watcher.channel("a"))


def test_two_processes_agree_on_uids_and_see_each_others_writes(folder: Path, tmp_path: Path) -> None:
    write(folder / "a.yaml", *(channel(f"c{number}") for number in range(20)))
    program = (
        "import sys, threading, json\n"
        "from pathlib import Path\n"
        "from bus_core import BusReference, ManifestSource\n"
        "from bus_core.model.conditions import Condition\n"
        "source = ManifestSource(Path(sys.argv[1]), BusReference('demo', 'default'), state_dir=Path(sys.argv[2]))\n"
        "seen, stop = {}, threading.Event()\n"
        "t = threading.Thread(target=source.run, args=(lambda c: seen.__setitem__(c.key.name, c.resource), stop))\n"
        "t.start(); source.synced.wait(5)\n"
        "source.write_conditions(seen['c7'], [Condition('Ready', 'True', 'Theirs')])\n"
        "print(json.dumps({name: r.uid for name, r in seen.items()}))\n"
        "stop.set(); t.join()\n"
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", program, str(folder), str(tmp_path / "state")]
    other = subprocess.Popen(command, stdout=subprocess.PIPE, env=env, text=True)
    with watching(folder, tmp_path / "state") as watcher:
        theirs = json.loads(other.communicate(timeout=20)[0])
        assert theirs == {key.name: resource.uid for key, resource in watcher.now.items()}
        wait_for(lambda: (c := watcher.channel("c7")) and c.is_true("Ready"), what="their write is seen here")


def test_the_state_directory_may_not_be_in_the_folder(folder: Path) -> None:
    for inside in (folder, folder / "state"):
        with pytest.raises(ConfigurationError, match="--state-dir"):
            ManifestSource(folder, BUS, state_dir=inside)


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ("a: [1\n", 1, "is not YAML"),
        ("a: 1\na: 2\n", 2, "given twice"),
        ("- 1\n", 1, "not a Kubernetes object"),
        ("apiVersion: channels.knative.dev/v9\nkind: Channel\n", 1, "channels.knative.dev/v1alpha1"),
        ("apiVersion: channels.knative.dev/v1alpha1\nkind: Chanel\n", 2, "must be one of Bus"),
        ("apiVersion: channels.knative.dev/v1alpha1\nkind: [Channel]\n", 2, "must be one of Bus"),
        ("kind: Channel\napiVersion: channel.knative.dev/v1alpha1\n", 2, "did you mean channels.knative.dev/v1alpha1?"),
        ("kind: Bus\napiVersion: Channels.Knatve.dev/v1alpha1\n", 2, "did you mean channels.knative.dev/v1alpha1?"),
        ("kind: Channel\napiVersion: channels.knative/v1alpha1\n", 2, "did you mean channels.knative.dev/v1alpha1?"),
        (
            "a: &a [x, x]\n"
            + "".join(f"{b}: &{b} [{', '.join([f'*{a}'] * 30)}]\n" for a, b in zip("abcde", "bcdef", strict=True)),
            0,
            "too many nodes",
        ),
        ("a: " + "[" * 70 + "{a: 1}" + "]" * 70, 1, "nested more than 64 levels deep"),
        ("a: 1\nb: " + "[" * 100_000, 2, "nested more than 64 levels deep"),
        ("a: 1\nb: &b [*b]\n", 2, "does an alias lead back to itself?"),
        ("a: 1\nb: &b\n  c: *b\n", 2, "does an alias lead back to itself?"),
        ("a: !!python/object/apply:os.system [true]\n", 0, "not a Kubernetes object"),
        ("\udcff", 0, "UTF-8"),
    ],
)
def test_files_that_cannot_be_read_say_why(folder: Path, text: str, line: int, says: str) -> None:
    (folder / "a.yaml").write_bytes(text.encode(errors="surrogateescape"))
    errors = check_manifests([folder])[1]
    assert [error for error in errors if says in str(error)], errors
    assert line in (0, errors[0].line)


def test_one_resource_in_two_files_is_an_error_that_names_both(folder: Path) -> None:
    write(folder / "a.yaml", channel("a"))
    write(folder / "b.yaml", channel("b"), channel("a"))
    read = read_folder(folder)
    assert [str(document.key) for document in read.documents] == ["Channel default/a"]
    assert "b.yaml:" in str(read.errors[0])
    assert "a.yaml:1" in str(read.errors[0])


@pytest.mark.parametrize("group", ["messaging", "eventing", "flows", "sources", "channels.messaging"])
def test_a_channel_of_another_group_is_left_alone(folder: Path, group: str) -> None:
    foreign = {"apiVersion": f"{group}.knative.dev/v1", "kind": "Channel", "metadata": {"name": "b"}}
    write(folder / "a.yaml", channel("a"), foreign)
    read = read_folder(folder)
    assert [document.key.name for document in read.documents] == ["a"]
    assert read.errors == []


def test_other_objects_lists_and_hidden_files(folder: Path) -> None:
    write(
        folder / "a.yaml",
        {"apiVersion": "apps/v1", "kind": "Deployment"},
        {"apiVersion": "v1", "kind": "List", "items": [channel("a")]},
    )
    write(folder / ".hidden.yaml", channel("h"))
    (folder / "notes.txt").write_text("no manifest")
    (folder / "sub").mkdir()
    write(folder / "sub" / "b.yml", channel("b"))
    read = read_folder(folder)
    assert [document.key.name for document in read.documents] == ["a", "b"]
    assert read.errors == []


EDITS = st.lists(
    st.tuples(
        st.sampled_from(["x.yaml", "y.yaml"]),
        st.sampled_from(["write", "break", "delete"]),
        st.sets(st.sampled_from("abc")),
    ),
    max_size=6,
)


@settings(max_examples=8, deadline=None)
@given(edits=EDITS, last=st.sets(st.sampled_from("abcd"), min_size=1))
def test_whatever_was_edited_in_the_end_the_state_is_the_folders(
    edits: list[tuple[str, str, set[str]]], last: set[str]
) -> None:
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "manifests"
        folder.mkdir()
        with watching(folder, Path(place) / "state") as watcher:
            for name, what, channels in edits:
                if what == "write":
                    write(folder / name, *(channel(one) for one in sorted(channels)))
                elif what == "break":
                    (folder / name).write_text("kind: [")
                else:
                    (folder / name).unlink(missing_ok=True)
            (folder / "y.yaml").unlink(missing_ok=True)
            write(folder / "x.yaml", *(channel(one) for one in sorted(last)))
            wait_for(lambda: {key.name for key in watcher.now} == last, 5)
