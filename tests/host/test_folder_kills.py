"""`kill -9` of a whole bus at random moments while its folder is edited: no channel is forgotten, none taken apart."""

from __future__ import annotations

import contextlib
import os
import random
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.packages import recording_package
from tests.support import BusProcess, manifest, stored, wait_for

KILLS = int(os.environ.get("BUS_FOLDER_KILLS", "200"))


class Editor:
    """Edits a folder on a thread of its own. No name of a channel is used twice, so a removed one never comes back."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.removed: dict[str, float] = {}  # when it was, on the clock that the driver writes down
        self.live: dict[str, Path] = {}
        self._folder = folder
        self._random = random.Random(seed)
        self._made = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._edit, name="editor")
        for _ in range(5):
            self._add()
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(10)

    def _edit(self) -> None:
        while not self._stop.wait(self._random.uniform(0.02, 0.2)):
            name = self._random.choice(sorted(self.live))
            match self._random.randrange(4):
                case 0:
                    self._add()
                case 1:
                    self._remove(name)
                case 2:
                    self._write(name, str(self._random.random()))
                case 3:
                    self._move(name)

    def _add(self) -> None:
        if len(self.live) < 12:
            self._made += 1
            name = f"c{self._made}"
            self.live[name] = self._folder / f"{name}.yaml"
            self._write(name, "0")

    def _remove(self, name: str) -> None:
        if len(self.live) > 3:
            self.removed[name] = time.monotonic()
            self.live.pop(name).unlink()

    def _move(self, name: str) -> None:
        self.live[name] = self.live[name].rename(self._folder / f"{name}-{self._random.randrange(10**9)}.yaml")

    def _write(self, name: str, size: str) -> None:
        """In one step, or as an editor that truncates its file first."""
        channel = manifest("Channel", name, bus="demo", arguments=[{"name": "size", "value": size}])
        subscription = manifest("Subscription", f"s-{name}", channel=name, subscriber="http://127.0.0.1:9/")
        text, path = yaml.safe_dump_all([channel, subscription]), self.live[name]
        if self._random.random() < 0.5:
            path.write_text(text)
        else:
            path.with_suffix(".new").write_text(text)
            path.with_suffix(".new").replace(path)


def calls(record: Path) -> list[tuple[str, str, str, float]]:
    """Hook, name, uid with arguments, and moment of each call; a line that a kill cut off is no call."""
    found = []
    for line in record.read_text().splitlines():
        with contextlib.suppress(ValueError):
            _, hook, name, what, moment = line.split()
            found.append((hook, name, what.partition("[")[0], float(moment)))
    return found


@pytest.mark.soak
def test_no_kill_forgets_a_channel_or_takes_one_apart_that_was_not_removed(tmp_path: Path) -> None:
    folder, state, record = tmp_path / "manifests", tmp_path / "state", tmp_path / "record"
    folder.mkdir()
    record.touch()
    (folder / "bus.yaml").write_text(yaml.safe_dump(manifest("Bus", "demo")))
    env = {"PYTHONPATH": str(recording_package(tmp_path / "site")), "RECORD": str(record)}
    seed = random.randrange(10**6)
    dice = random.Random(seed)
    print(f"seed {seed}")
    editor = Editor(folder, seed)
    running = 0

    def start() -> BusProcess:
        options = ("--driver", "recording", "--deletion-grace", "0.05", "--workers", dice.choice("12"))
        return BusProcess(folder, state, *options, env=env)

    try:
        for number in range(KILLS):
            process = start()
            try:
                if number % 2:
                    process.wait_ready(30)
                    running += 1
                time.sleep(dice.uniform(0, 1.2))
                assert process.process.poll() is None, process.log
            finally:
                process.kill()
    finally:
        editor.stop()
    process = start()
    try:
        process.wait_ready(30)
        wait_for(lambda: _channels(state) == set(editor.live), 30, "the state is what the folder says")
        wait_for(lambda: all(_is_provisioned(state, name) for name in editor.live), 30, "every channel is provisioned")
        assert "Traceback" not in process.log
        assert process.stop() == 0
    finally:
        process.kill()
    _judge(calls(record), editor)
    print(f"{KILLS} kills, {running} of them while it was ready; {len(editor.removed)} channels removed")


def _channels(state: Path) -> set[str]:
    return {name.partition("/")[2] for name in stored(state) if name.startswith("Channel/")}


def _is_provisioned(state: Path, name: str) -> bool:
    found: dict[str, Any] = stored(state)[f"Channel/{name}"]
    conditions = {one["type"]: one["status"] for one in found.get("status", {}).get("conditions", ())}
    return conditions.get("Provisioned") == "True" and "bus-core/demo" in found["metadata"].get("finalizers", ())


def _judge(called: list[tuple[str, str, str, float]], editor: Editor) -> None:
    uids: dict[str, set[str]] = {}
    last: dict[str, str] = {}
    for hook, name, uid, moment in called:
        if hook not in ("provision", "unprovision"):
            continue
        uids.setdefault(name, set()).add(uid)
        last[name] = hook
        if hook == "unprovision":
            assert name in editor.removed, f"{name} was never removed"
            assert moment > editor.removed[name], f"{name} was taken apart before it was removed"
    assert {name for name, found in uids.items() if len(found) > 1} == set(), "each channel is one and the same"
    assert {name for name, hook in last.items() if hook == "provision"} == set(editor.live), "forgotten, or not made"
    assert sum(hook == "unprovision" for hook in last.values()) > KILLS // 20, "channels were taken apart"
