"""The folder in which workers share metrics goes with its run, or with the next one if the run was killed."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

import pytest

from bus_core.host.metrics_folder import PREFIX, metrics_folder
from tests.support import QUICKSTART, bus, wait_for


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder for temporary files, of this process and of those that it starts."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr("tempfile.tempdir", None)
    return folder


def folders(temporary: Path) -> set[Path]:
    return set(temporary.glob(f"{PREFIX}*"))


def test_a_run_removes_its_folder(tmp_path: Path, temporary: Path) -> None:
    with bus(QUICKSTART, tmp_path / "state", "--driver", "stub") as process:
        assert len(folders(temporary)) == 1
        assert process.stop() == 0
    assert folders(temporary) == set()


def test_the_next_run_removes_the_folder_of_one_that_was_killed(tmp_path: Path, temporary: Path) -> None:
    options = ("--driver", "stub", "--workers", "2")
    with bus(QUICKSTART, tmp_path / "a", *options) as running:
        (kept,) = folders(temporary)
        with bus(QUICKSTART, tmp_path / "b", *options) as killed:
            (left,) = folders(temporary) - {kept}
            workers = killed.worker_pids()
            os.kill(killed.process.pid, signal.SIGKILL)
            killed.process.wait()
            wait_for(lambda: not any(is_alive(pid) for pid in workers), what="the workers end after their master")
        assert left.is_dir(), "a run that is killed cannot remove it"
        with bus(QUICKSTART, tmp_path / "c", *options) as third:
            assert not left.exists(), "the next run removes it"
            assert kept.is_dir(), "another run is using it"
            assert len(folders(temporary)) == 2
            assert third.says("removed the metrics folder of a killed run", str(left))
        wait_for(lambda: running.metric("bus_reconciles_total") > 0, what="metrics of the run that goes on")


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_folder_that_somebody_holds_or_that_has_no_lock_stays(temporary: Path) -> None:
    unlocked = temporary / f"{PREFIX}unlocked"  # perhaps one that another run is making at this moment
    unlocked.mkdir()
    elsewhere = temporary / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "lock").touch()
    link = temporary / f"{PREFIX}link"
    link.symlink_to(elsewhere)
    with metrics_folder() as first, metrics_folder() as second:
        assert {first, second, unlocked, link} == folders(temporary)
        assert elsewhere.is_dir()
    assert {unlocked, link} == folders(temporary)


def test_a_folder_whose_lock_is_free_goes(temporary: Path) -> None:
    abandoned = temporary / f"{PREFIX}abandoned"
    with metrics_folder() as folder:
        (folder / "counter_1.db").write_bytes(b"x")
        shutil.copytree(folder, abandoned)
        with metrics_folder():
            assert not abandoned.exists()
            assert folder.is_dir()
