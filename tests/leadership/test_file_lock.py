"""Leadership by file locks: one holder for each role, followed at once, and the kernel frees what a dead one held."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from bus_core import DISPATCHER, PROVISIONER, BusReference, FileLock
from bus_core.model.resources import Role
from tests.support import wait_for

BUS = BusReference("demo", "default")
POLL = 0.01


class Contender:
    """One process's leadership, and the roles that it was told it gained."""

    def __init__(self, directory: Path, *roles: Role) -> None:
        self.gained: list[Role] = []
        self.lock = FileLock(directory, poll=POLL)
        self.lock.start(BUS, roles, self.gained.append)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "leadership"


@contextlib.contextmanager
def contender(directory: Path, *roles: Role) -> Iterator[Contender]:
    found = Contender(directory, *roles)
    try:
        yield found
    finally:
        found.lock.release()


def test_the_first_leads_every_role_at_once(directory: Path) -> None:
    with contender(directory, PROVISIONER, DISPATCHER) as first:
        assert first.gained == [PROVISIONER, DISPATCHER]
        assert first.lock.held(PROVISIONER)
        assert first.lock.held(DISPATCHER)
        assert (directory / "provisioner.lock").read_text() == f"{os.getpid()}\n"
        assert first.lock.problems() == []


def test_another_follows_when_the_first_releases(directory: Path) -> None:
    with contender(directory, PROVISIONER) as first, contender(directory, PROVISIONER) as second:
        assert not second.lock.held(PROVISIONER)
        assert second.gained == []
        first.lock.release()
        assert not first.lock.held(PROVISIONER)
        wait_for(lambda: second.lock.held(PROVISIONER), 2)
        wait_for(lambda: second.gained == [PROVISIONER], 2)


def test_roles_are_led_one_by_one(directory: Path) -> None:
    with contender(directory, PROVISIONER) as first, contender(directory, PROVISIONER, DISPATCHER) as second:
        assert second.gained == [DISPATCHER]
        assert second.lock.held(DISPATCHER)
        assert not second.lock.held(PROVISIONER)
        assert not first.lock.held(DISPATCHER), "it does not play that role"


def test_one_that_released_never_leads_again(directory: Path) -> None:
    with contender(directory, PROVISIONER) as first, contender(directory, PROVISIONER) as second:
        second.lock.release()
        second.lock.release()  # twice does no harm
        first.lock.release()
        with contender(directory, PROVISIONER) as third:
            wait_for(lambda: third.lock.held(PROVISIONER), 2)
            assert not second.lock.held(PROVISIONER)
            assert second.gained == []


def test_the_kernel_frees_what_a_dead_process_held(directory: Path) -> None:
    read, write = os.pipe()
    child = os.fork()
    if not child:
        held = Contender(directory, PROVISIONER)
        assert held.gained
        os.write(write, b"led")
        threading.Event().wait(30)
        held.lock.release()
        os._exit(1)
    try:
        assert os.read(read, 3) == b"led"
        with contender(directory, PROVISIONER) as other:
            assert not other.lock.held(PROVISIONER)
            assert (directory / "provisioner.lock").read_text() == f"{child}\n"
            os.kill(child, signal.SIGKILL)
            wait_for(lambda: other.lock.held(PROVISIONER), 2)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(read)
        os.close(write)
