"""What one reconcile does when something is wrong: hooks that fail, parameters that lack, a Bus that is gone."""

from __future__ import annotations

import logging

import pytest

from bus_core.control_plane.monitor.channel_view import Availability
from bus_core.model.conditions import Condition
from bus_core.model.errors import PermanentError, TemporaryError
from bus_core.model.parameters import Parameter
from bus_core.model.references import SubscriptionReference
from bus_core.model.resources import ResourceKey, Subscription
from tests.monitor.fakes import bus, channel, subscription
from tests.monitor.world import ONE_KEY, ORDERS_KEY, World


def test_a_temporary_error_is_tried_again_after_its_time_and_not_before(world: World) -> None:
    world.hooks.fail["provision", "orders"] = TemporaryError("the broker is away", retry_after=7)
    result, again = world.settle()
    assert (result, again) == ("temporary", 7)
    assert world.status(ORDERS_KEY, "Provisioned") == ("False", "TemporaryError")
    assert world.hooks.count("provision", "orders") == 1, "its own condition must not call it again"
    world.now += 7
    world.hooks.fail.clear()
    assert world.settle() == ("ok", None)
    assert world.status(ORDERS_KEY, "Ready")[0] == "True"
    assert [event[1] for event in world.source.events if "Channel" in event[0]] == ["ErrResourceSync", "Synced"]


def test_what_the_driver_says_comes_before_what_delivery_says(world: World) -> None:
    world.settle()
    one = SubscriptionReference("one")
    world.reconciler.report(one, "SubscriberFailing", "it answered 500", "delivery")
    for message in ("partition 0", "partition 0, partition 1"):
        world.reconciler.report(one, "Blocked", message, "driver")
        world.settle()
        ready = world.get(ONE_KEY).condition("Ready")
        assert ready is not None
        assert ready.message == message
    world.reconciler.report(one, "", "", "driver")
    world.settle()
    assert world.status(ONE_KEY, "Ready") == ("False", "SubscriberFailing")


def test_a_permanent_error_waits_for_a_change(world: World) -> None:
    world.source.put(bus(Parameter("colour", default="red")))
    world.hooks.fail["provision", "orders"] = PermanentError("no such colour")
    assert world.settle() == ("permanent", None)
    world.now += 1e6
    assert world.settle() == ("permanent", None)
    assert world.hooks.count("provision", "orders") == 1
    assert world.status(ORDERS_KEY, "Ready") == ("False", "PermanentError")
    world.hooks.fail.clear()
    world.source.put(channel(colour="blue"))
    assert world.settle() == ("ok", None)


def test_any_other_error_backs_off_and_is_logged_once(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.hooks.fail["provision", "orders"] = RuntimeError("a fault")
    waits = []
    with caplog.at_level(logging.ERROR):
        for _ in range(4):
            result, again = world.settle()
            assert result == "error"
            assert again is not None
            waits.append(round(again, 3))
            world.now += again
    assert waits == [0.1, 0.2, 0.4, 0.8]
    assert len([record for record in caplog.records if record.exc_info]) == 1
    assert len([event for event in world.source.events if event[1] == "ErrResourceSync"]) == 1


def test_a_failed_reprovision_does_not_stop_what_works(world: World) -> None:
    world.source.put(bus(Parameter("colour", default="red")))
    world.settle()
    world.hooks.fail["provision", "orders"] = PermanentError("not that colour")
    world.source.put(channel(colour="blue"))
    world.settle()
    assert world.status(ORDERS_KEY, "Provisioned") == ("True", "UpdateFailed")
    assert world.status(ORDERS_KEY, "Ready") == ("False", "PermanentError")
    assert world.available() is Availability.READY


def test_one_failing_subscription_does_not_keep_the_others_back(world: World) -> None:
    world.source.put(subscription("two"))
    world.hooks.fail["subscribe", "one"] = PermanentError("never")
    world.settle()
    assert set(world.hooks.subscribed) == {"two"}
    assert world.status(ONE_KEY, "Dispatching") == ("False", "PermanentError")
    assert world.status(ResourceKey("Subscription", "default", "two"), "Ready")[0] == "True"


def test_missing_parameters_are_all_named_and_an_edit_cures_them() -> None:
    world = World(declared=(Parameter("a"), Parameter("b"), Parameter("c", default="1")))
    world.source.put(channel())
    assert world.settle() == ("permanent", None)
    condition = world.get(ORDERS_KEY).condition("Ready")
    assert condition is not None
    assert (condition.status, condition.reason) == ("False", "MissingParameter")
    assert "a, b" in condition.message
    assert world.hooks.calls == []
    world.source.put(channel(a="1", b="2", d="3"))
    assert world.settle() == ("ok", None)
    assert world.hooks.provisioned["orders"] == {"a": "1", "b": "2", "c": "1"}
    condition = world.get(ORDERS_KEY).condition("Provisioned")
    assert condition is not None
    assert "d" in condition.message, "an argument that nobody declares is named"


def test_ignored_arguments_are_told_once() -> None:
    world = World()
    world.source.put(channel(colour="red"))
    world.source.put(subscription())
    world.settle()
    world.restart()
    world.settle()
    told = [message for _, reason, message in world.source.events if reason == "ErrResourceSync"]
    assert told == ["arguments are ignored, because neither driver nor bus declares them: colour"]


def test_a_service_that_could_not_be_made_is_tried_again(world: World) -> None:
    world.source.reached = [Condition("Serviceable", "False", "Forbidden", "not allowed")]
    _, again = world.settle()
    assert again is not None
    assert 30 <= again <= 90
    world.source.reached = [Condition("Serviceable", "True", "ServiceExists")]
    world.now += again
    assert world.settle() == ("ok", None)
    assert world.status(ORDERS_KEY, "Ready")[0] == "True"


def test_without_its_bus_a_deleted_channel_does_not_wait(world: World) -> None:
    """Where a namespace goes, the rights of the bus go in any order: what is to be let go is let go at once."""
    world.settle()
    world.source.delete(ResourceKey("Bus", "default", "demo"))
    world.source.delete(ORDERS_KEY)
    world.settle()
    assert world.hooks.count("unprovision", "orders") == 1
    assert ORDERS_KEY not in world.source.objects


def test_a_new_process_that_knows_no_parameters_does_not_serve_with_none() -> None:
    world = World(declared=(Parameter("a", default="1"),))
    world.source.put(channel())
    world.source.put(subscription())
    world.settle()
    world.hooks.declared = (Parameter("a", default="1"), Parameter("b"))
    world.restart()
    world.settle()
    assert world.available() is Availability.UNPROVISIONED
    assert world.hooks.calls == []
    assert world.status(ORDERS_KEY, "Ready") == ("False", "MissingParameter")
    world.source.put(channel(b="2"))
    world.settle()
    assert world.available() is Availability.READY
    assert set(world.hooks.subscribed) == {"one"}


def test_without_its_bus_a_channel_goes_on_and_a_new_one_waits(world: World) -> None:
    world.settle()
    world.source.delete(ResourceKey("Bus", "default", "demo"))
    world.hooks.calls.clear()
    world.source.put(subscription("two"))
    world.settle()
    assert world.hooks.calls == []
    assert world.available() is Availability.READY


def test_a_subscription_that_is_told_again_is_subscribed_again(world: World) -> None:
    world.settle()
    resource = world.get(ONE_KEY)
    assert isinstance(resource, Subscription)
    world.reconciler.again(resource.reference)
    world.settle()
    assert world.hooks.count("subscribe", "one") == 2
