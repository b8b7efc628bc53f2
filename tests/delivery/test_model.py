"""The scheduler against its model: anything in any order, for seconds here, and for minutes in the soak."""

from __future__ import annotations

import os
import secrets
import time

import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import run_state_machine_as_test

from bus_core.data_plane.delivery.lane import EVENT_COST, Lane, LaneLimits
from bus_core.data_plane.delivery.scheduler import Scheduler
from bus_core.data_plane.delivery.turns import QUANTUM
from bus_core.model.message import Message
from tests.delivery.machine import SchedulerMachine
from tests.delivery.model import of_size

SOAK_SECONDS = float(os.environ.get("BUS_SOAK_SECONDS", "120"))
SOAK_SEED = os.environ.get("BUS_SOAK_SEED")


def sized(examples: int, steps: int) -> settings:
    return settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )


def test_the_scheduler_is_its_model() -> None:
    run_state_machine_as_test(SchedulerMachine, settings=sized(250, 50))


@pytest.mark.soak
def test_the_scheduler_is_its_model_for_long() -> None:
    ends = time.monotonic() + SOAK_SECONDS
    rounds = 0
    while rounds == 0 or (time.monotonic() < ends and SOAK_SEED is None):
        number = int(SOAK_SEED) if SOAK_SEED is not None else secrets.randbits(32)
        try:
            run_state_machine_as_test(
                seed(number)(type("Seeded", (SchedulerMachine,), {})),
                settings=sized(300, 120),
            )
        except BaseException:
            print(f"again with: BUS_SOAK_SEED={number} make soak")
            raise
        rounds += 1
    print(f"{rounds} rounds of 300 examples, each with a seed of its own")


@settings(max_examples=60, deadline=None, database=None)
@given(sizes=st.lists(st.sampled_from([1, 256, 16_384, 100_000, 1 << 20]), min_size=2, max_size=5))
def test_lanes_take_turns_by_bytes(sizes: list[int]) -> None:
    """Deficit round robin: while all have work, no lane is ahead of another by more than its largest event and a turn,
    so a lane of 1 MiB bodies does not starve one of 256 B, nor the other way round."""
    scheduler = Scheduler(max_probes=100)
    lanes = [Lane(str(index), LaneLimits(bytes=1 << 50), None, 0.0) for index in range(len(sizes))]
    sent = [0] * len(sizes)
    message = Message({}, b"")

    def refill(index: int) -> None:
        scheduler.publish([lanes[index]], message, of_size(sizes[index]), 0.0)

    for index, lane in enumerate(lanes):
        lane.health.last_success = 0.0
        for _ in range(3):
            refill(index)
    for _ in range(1_500):
        event = scheduler.take_for_thread(0.0)
        assert event is not None
        index = lanes.index(event.lane)
        sent[index] += event.size + EVENT_COST
        scheduler.finish(event, 0.0, success=True)
        refill(index)
        slack = max(sizes) + EVENT_COST + 2 * QUANTUM
        assert max(sent) - min(sent) <= 2 * slack
