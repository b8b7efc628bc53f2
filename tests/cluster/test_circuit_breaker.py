"""The circuit breaker: one caller tries again, the others wait, and the log says it once a minute."""

from __future__ import annotations

import logging

import pytest

from bus_core.control_plane.cluster.circuit_breaker import (
    BACKOFF,
    CHANGE,
    PROBE,
    PROBE_POLL,
    REMINDER,
    CircuitBreaker,
    UnreachableError,
)


class World:
    """A breaker, and the clock in the test's hand."""

    def __init__(self) -> None:
        self.now = 100.0
        self.breaker = CircuitBreaker("server", clock=self.clock, jitter=self.jitter)

    def clock(self) -> float:
        return self.now

    def jitter(self) -> float:
        return 0.0

    def refused_for(self) -> float:
        """Seconds until a caller may come back; 0 if it is admitted."""
        try:
            self.breaker.admit()
        except UnreachableError as error:
            return error.retry_after
        return 0.0


def test_tries_follow_the_back_off_and_are_few_in_a_minute() -> None:
    world, tries, end = World(), 0, 160.0
    while world.now < end:
        wait = world.refused_for()
        if not wait:
            tries += 1
            wait = world.breaker.failed("refused").retry_after
        world.now += wait
    assert tries == 14
    assert sum(BACKOFF[:7]) == 7, "each second until a Lease of ten seconds is no longer held"


def test_one_caller_tries_while_the_others_wait() -> None:
    world = World()
    world.breaker.admit()
    world.breaker.failed("refused")
    assert world.refused_for() == BACKOFF[0]
    world.now += BACKOFF[0]
    assert world.refused_for() == 0.0
    assert world.refused_for() == PROBE_POLL
    world.breaker.connected()
    assert world.refused_for() == 0.0
    assert world.refused_for() == 0.0


def test_a_try_that_neither_fails_nor_answers_keeps_nobody_out() -> None:
    world = World()
    world.breaker.failed("refused")
    world.now += BACKOFF[0]
    assert world.refused_for() == 0.0, "a watch on a server that hangs, say"
    world.now += PROBE
    assert world.refused_for() == 0.0


def test_requests_that_fail_at_the_same_moment_count_as_one() -> None:
    world = World()
    for _ in range(5):
        world.breaker.failed("refused")
    assert world.refused_for() == BACKOFF[0]
    world.now += BACKOFF[0]
    assert world.refused_for() == 0.0


def test_the_log_says_it_once_and_reminds_each_minute(caplog: pytest.LogCaptureFixture) -> None:
    world = World()
    with caplog.at_level(logging.INFO):
        while world.now < 100 + 3 * REMINDER:
            wait = world.refused_for()
            world.now += wait or world.breaker.failed("refused").retry_after
        assert 3 <= len(caplog.records) <= 4
        caplog.clear()
        for detail in ("refused", "reset") * 5:
            world.now += world.breaker.failed(detail).retry_after
        assert len(caplog.records) <= 10 * BACKOFF[-1] * 1.1 / CHANGE + 1, "nor does a reason that alternates fill it"
        caplog.clear()
        world.breaker.connected()
        world.breaker.connected()
        assert [record.getMessage() for record in caplog.records] == ["the API server can be reached again"]
