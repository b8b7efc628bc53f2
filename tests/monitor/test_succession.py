"""What ends, and what comes after it under the same name: a hook that fails holds up what has to come later."""

from __future__ import annotations

import pytest

from bus_core.model.errors import PermanentError, TemporaryError
from bus_core.model.resources import ResourceKey
from tests.monitor.fakes import channel, subscription
from tests.monitor.world import GRACE, ONE_KEY, ORDERS, ORDERS_KEY, World

NOT_NOW = TemporaryError("the group still has members", retry_after=1.0)


@pytest.fixture
def begun(world: World) -> World:
    world.settle()
    world.hooks.calls.clear()
    return world


def vanish(world: World, key: ResourceKey) -> None:
    """Gone at once: its finalizers have been taken away by others."""
    world.source.remove_finalizer(world.get(key), "bus-core/demo")
    world.source.delete(key)
    assert key not in world.source.objects


def test_a_failed_unsubscribe_is_tried_again_although_the_subscription_has_vanished(begun: World) -> None:
    begun.hooks.fail["unsubscribe", "one"] = NOT_NOW
    vanish(begun, ONE_KEY)
    assert begun.settle() == ("temporary", 1.0)
    begun.hooks.fail.clear()
    begun.now += 1
    assert begun.settle() == ("ok", None)
    assert begun.hooks.calls == [("unsubscribe", "one")] * 2
    assert not begun.reconciler.views[ORDERS].subscriptions


def test_a_subscription_waits_for_the_end_of_the_one_before_it(begun: World) -> None:
    begun.hooks.fail["unsubscribe", "one"] = NOT_NOW
    vanish(begun, ONE_KEY)
    begun.source.put(subscription(subscriber="http://new/"))
    assert begun.settle() == ("temporary", 1.0)
    assert begun.hooks.calls == [("unsubscribe", "one")]
    assert begun.status(ONE_KEY, "Dispatching") == ("False", "TemporaryError")
    begun.hooks.fail.clear()
    begun.now += 1
    begun.settle()
    assert begun.hooks.calls == [("unsubscribe", "one"), ("unsubscribe", "one"), ("subscribe", "one")]
    assert begun.status(ONE_KEY, "Dispatching")[0] == "True"


def test_a_subscription_does_not_wait_for_an_end_that_will_never_come(begun: World) -> None:
    begun.hooks.fail["unsubscribe", "one"] = PermanentError("never")
    vanish(begun, ONE_KEY)
    begun.source.put(subscription(subscriber="http://new/"))
    begun.settle()
    assert begun.hooks.calls == [("unsubscribe", "one"), ("subscribe", "one")]


def test_a_channel_goes_after_its_subscriptions(begun: World) -> None:
    begun.hooks.fail["unsubscribe", "one"] = NOT_NOW
    begun.source.delete(ORDERS_KEY)
    begun.settle()
    begun.now += GRACE
    begun.settle()
    assert ("unprovision", "orders") not in begun.hooks.calls
    assert ORDERS_KEY in begun.source.objects
    begun.hooks.fail.clear()
    begun.now += GRACE
    begun.settle()
    begun.now += GRACE
    begun.settle()
    assert begun.hooks.calls[-2:] == [("unsubscribe", "one"), ("unprovision", "orders")]
    assert ORDERS_KEY not in begun.source.objects


@pytest.mark.parametrize("hook", ["unsubscribe", "unprovision"])
def test_a_channel_waits_for_the_end_of_the_one_before_it(begun: World, hook: str) -> None:
    begun.hooks.fail[hook, "one" if hook == "unsubscribe" else "orders"] = NOT_NOW
    begun.source.objects.pop(ORDERS_KEY)
    begun.source.put(channel())
    begun.settle()
    assert not {"provision", "subscribe"} & {name for name, _ in begun.hooks.calls}
    begun.hooks.fail.clear()
    begun.now += 1
    begun.settle()
    ended = ["unsubscribe", *(["unsubscribe"] if hook == "unsubscribe" else []), "unprovision"]
    ended += ["unprovision"] if hook == "unprovision" else []
    assert [name for name, _ in begun.hooks.calls] == [*ended, "provision", "subscribe"]


def test_a_channel_that_goes_comes_to_rest_although_its_subscription_had_failed(world: World) -> None:
    world.hooks.fail["subscribe", "one"] = NOT_NOW
    world.settle()
    vanish(world, ORDERS_KEY)
    world.settle()
    world.now += 100
    assert world.settle() == ("ok", None), "nothing is left to retry"
    world.hooks.fail.clear()
    world.source.put(channel())
    world.settle()
    assert world.status(ONE_KEY, "Ready")[0] == "True"
