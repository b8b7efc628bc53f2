"""Reports on subscriptions: kept for one that is known soon, and not for ever for one that is gone."""

from __future__ import annotations

from bus_core.control_plane.monitor.cache import Cache
from bus_core.control_plane.monitor.reports import KEEP_UNKNOWN, Reports
from bus_core.control_plane.sources import Change
from bus_core.model.references import ChannelReference, SubscriptionReference
from tests.monitor.fakes import BUS, subscription
from tests.monitor.world import ONE_KEY, World

ONE = SubscriptionReference("one")


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_reports_on_subscriptions_that_never_come_are_dropped() -> None:
    clock = Clock()
    reports = Reports(Cache(BUS), clock)
    for number in range(1000):
        reports.put(SubscriptionReference(f"s{number}"), "delivery", "SubscriberFailing", "500")
        clock.now += 1
    assert len(reports) <= 2 * KEEP_UNKNOWN + 1


def test_a_report_that_is_taken_back_leaves_nothing() -> None:
    reports = Reports(Cache(BUS), Clock())
    reports.put(ONE, "driver", "Blocked", "partition 0")
    reports.put(ONE, "driver", "", "")
    reports.put(SubscriptionReference("two"), "delivery", "", "")
    assert len(reports) == 0


def test_a_report_stays_as_long_as_its_subscription_exists() -> None:
    clock, cache = Clock(), Cache(BUS)
    reports = Reports(cache, clock)
    cache.apply(Change(ONE_KEY, subscription()))
    reports.put(ONE, "driver", "Blocked", "partition 0")
    clock.now += 10 * KEEP_UNKNOWN
    reports.put(SubscriptionReference("two"), "driver", "Blocked", "partition 0")
    assert reports.get(ONE) == ("Blocked", "partition 0")


def test_a_report_that_comes_before_its_subscription_is_not_lost(world: World) -> None:
    two = SubscriptionReference("two")
    assert world.reconciler.report(two, "Blocked", "partition 0", "driver") is None
    world.source.put(subscription("two"))
    world.settle()
    assert world.status(subscription("two").key, "Ready") == ("False", "Blocked")
    assert world.reconciler.report(two, "", "", "driver") == ChannelReference("orders")
    world.settle()
    assert world.status(subscription("two").key, "Ready")[0] == "True"


def test_a_report_ends_with_its_subscription(world: World) -> None:
    world.settle()
    world.reconciler.report(ONE, "Blocked", "partition 0", "driver")
    world.settle()
    world.source.delete(ONE_KEY)
    world.settle()
    world.source.put(subscription())
    world.settle()
    assert world.status(ONE_KEY, "Ready")[0] == "True"
