"""The stages of a shutdown: each begins although the one before it failed or hangs, and in one order."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, cast

import pytest

from bus_core.data_plane.delivery import Delivery
from bus_core.data_plane.dispatch import MessageDispatcher
from bus_core.data_plane.receiver.receiver import MessageReceiver
from bus_core.host import shutdown
from bus_core.host.hooks import HostHooks
from bus_core.host.monitor_thread import MonitorThread
from bus_core.host.shutdown import GRACE, SERVER, Parts, Shutdown

IN_ORDER = ["refuse", "close_idle", "receive", "monitor", "drain", "hooks", "driver", "connections"]


class FakeParts:
    """Everything that a shutdown stops. `do[name]` is what a part does besides noting that it was called."""

    driver_name = "fake"
    in_flight = 0

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.do: dict[str, Callable[[], object]] = {}
        self.stopping = threading.Event()
        self.exit_stack = contextlib.ExitStack()
        self.exit_stack.callback(self.note, "driver")

    def note(self, name: str) -> Any:
        self.calls.append(name)
        return self.do.get(name, lambda: 0)()

    # The receiver.

    def refuse(self, why: str) -> None:
        assert why == "the bus is stopping"
        self.note("refuse")

    async def drained(self, timeout: float) -> int:
        return int(self.note("receive"))

    # The server.

    def close_idle(self) -> None:
        assert self.stopping.is_set(), "the driver takes no more in"
        self.note("close_idle")

    # The monitor.

    def stop(self) -> None:
        self.note("monitor")

    def release_leadership(self) -> None:
        self.note("leadership")

    # Delivery.

    def depths(self) -> dict[str, int]:
        return {"default/one": 2, "default/two": 3}

    def drain(self, timeout: float) -> int:
        self.note("drain")
        return 1


class Hooks:
    def __init__(self, parts: FakeParts) -> None:
        self.driver_name = "fake"
        self._parts = parts

    def close(self) -> None:
        self._parts.note("hooks")


class Dispatcher:
    def __init__(self, parts: FakeParts) -> None:
        self._parts = parts

    def close(self) -> None:
        self._parts.note("connections")


@pytest.fixture
def parts() -> FakeParts:
    return FakeParts()


@pytest.fixture
def released() -> Iterator[threading.Event]:
    """Ends what hangs, at the end of the test."""
    event = threading.Event()
    yield event
    event.set()


def run(parts: FakeParts, drain_timeout: float = 0.0) -> float:
    """Run a shutdown; the seconds that it took."""
    made = Shutdown(
        Parts(
            receiver=cast(MessageReceiver, parts),
            hooks=cast(HostHooks, Hooks(parts)),
            monitor=cast(MonitorThread, parts),
            driver_stopping=parts.stopping,
            driver_exit=parts.exit_stack,
            delivery=cast(Delivery, parts),
            dispatcher=cast(MessageDispatcher, Dispatcher(parts)),
        ),
        drain_timeout,
    )
    assert not made.has_begun
    began = time.monotonic()
    asyncio.run(made.run(parts))
    assert made.has_begun
    return time.monotonic() - began


def test_the_order(parts: FakeParts) -> None:
    assert run(parts) < 1
    assert parts.calls == IN_ORDER


@pytest.mark.parametrize("stage", ["refuse", "close_idle", "receive", "monitor", "drain", "driver", "connections"])
def test_a_stage_that_fails_does_not_keep_the_next_from_beginning(
    parts: FakeParts, stage: str, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> None:
        raise ValueError("not this one")

    parts.do[stage] = fail
    run(parts)
    skipped = {"refuse": ["close_idle", "receive"], "close_idle": ["receive"]}.get(stage, [])
    assert parts.calls == [name for name in IN_ORDER if name not in skipped]
    assert any(record.message.startswith("a stage of the shutdown failed") for record in caplog.records)
    assert "not this one" in caplog.text


def test_who_leads_while_a_hook_hangs_leads_until_the_driver_closes(
    parts: FakeParts, released: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutdown, "MONITOR", 0.2)
    parts.do["monitor"] = released.wait
    run(parts)
    assert parts.calls == [*IN_ORDER[:5], "leadership", *IN_ORDER[5:]]


@pytest.mark.parametrize("stage", ["monitor", "drain", "leadership", "driver", "connections"])
def test_all_together_stay_in_the_budget(
    parts: FakeParts, released: threading.Event, stage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("MONITOR", "DRAIN_END", "LEADERSHIP", "CONNECTIONS"):
        monkeypatch.setattr(shutdown, name, 0.1)
    monkeypatch.setattr(shutdown, "GRACE", SERVER + 1.0)
    parts.do = {stage: released.wait, "monitor": released.wait}
    assert run(parts, drain_timeout=0.2) < 1.2 + 0.5
    assert parts.calls[-1] == "connections"


def test_the_shares_fit_into_the_budget() -> None:
    cancelled_answers, driver = 0.5, 2.0
    shares = shutdown.RECEIVE + cancelled_answers + shutdown.MONITOR + shutdown.DRAIN_END
    assert shares + shutdown.LEADERSHIP + driver + shutdown.CONNECTIONS <= GRACE - SERVER
