"""`kill -9` with thousands of events in flight: nothing that was acknowledged is lost."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable

import pytest

from tests.e2e.kafka.setting import Account, Setting
from tests.host.load import Load
from tests.support import Answer, BusProcess, Request, subscriber, wait_for

EVENTS = 8000
FREE = 3000
"""How many the subscriber takes before it holds the rest up: the others are in flight when the kill comes."""


def _kill_worker(setting: Setting, host: BusProcess, gate: threading.Event) -> None:
    os.kill(host.worker_pids()[0], signal.SIGKILL)
    gate.set()


def _kill_master(setting: Setting, host: BusProcess, gate: threading.Event) -> None:
    workers = host.worker_pids()
    os.kill(host.process.pid, signal.SIGKILL)
    host.process.wait()
    gate.set()
    wait_for(lambda: not any(_alive(pid) for pid in workers), 30, "the workers drain and end without their master")
    setting.start()


@pytest.mark.parametrize("kill", [_kill_worker, _kill_master])
def test_nothing_acknowledged_is_lost(
    setting: Setting, kill: Callable[[Setting, BusProcess, threading.Event], None]
) -> None:
    gate = threading.Event()
    with subscriber() as server:

        def behave(_: Request) -> Answer:
            if len(server.requests) > FREE:
                gate.wait(60)
            return Answer()

        server.behave = behave
        setting.channel("orders", numPartitions=4)
        setting.subscription("one", "orders", server.url())
        host = setting.start(served=("orders",))
        with Load(host.events, "orders", senders=16, limit=2 * EVENTS) as load:
            wait_for(lambda: len(load.accepted) >= EVENTS, 60)
            wait_for(lambda: len(server.requests) > FREE, 30)
            in_flight = len(load.accepted) - sum(max(at, 0) for at in setting.committed("orders", "one").values())
            assert in_flight >= EVENTS - FREE - 100
            kill(setting, host, gate)
        meanwhile = len(load.accepted) - EVENTS
        wait_for(lambda: set(server.bodies()) >= load.accepted, 90, "everything arrives")
        account = Account.of(sum(load.statuses.values()), load.accepted, server.bodies())
        print(f"in flight at the kill: {in_flight}, {meanwhile} more acknowledged around it, {load.broken} unanswered")
        assert not account.lost
        assert account.duplicates <= in_flight + meanwhile


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
