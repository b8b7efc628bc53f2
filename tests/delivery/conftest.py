"""Fixtures of the delivery tests."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from tests.delivery.looping import ByThread
from tests.delivery.rig import event_loop


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    with event_loop() as made:
        yield made


@pytest.fixture
def by_thread(monkeypatch: pytest.MonkeyPatch) -> ByThread:
    return ByThread(monkeypatch)
