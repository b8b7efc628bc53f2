"""A world with the channel `orders` and its subscription `one`."""

from __future__ import annotations

import pytest

from tests.monitor.fakes import channel, subscription
from tests.monitor.world import World


@pytest.fixture
def world() -> World:
    made = World()
    made.source.put(channel())
    made.source.put(subscription())
    return made
