"""What one reconcile does, rule by rule: serving, leadership, deletion."""

from __future__ import annotations

import pytest

from bus_core.control_plane.monitor.channel_view import Availability
from bus_core.model.errors import TemporaryError
from bus_core.model.parameters import Parameter
from bus_core.model.resources import DISPATCHER, PROVISIONER, Channel, Resource, ResourceKey
from tests.monitor.fakes import bus, channel, subscription
from tests.monitor.world import GRACE, ONE_KEY, ORDERS, ORDERS_KEY, World


def test_a_channel_is_provisioned_and_its_subscription_subscribed(world: World) -> None:
    assert world.settle() == ("ok", None)
    assert world.hooks.calls == [("provision", "orders"), ("subscribe", "one")]
    for kind in ("Provisioned", "Ready", "Serviceable", "Routeable"):
        assert world.status(ORDERS_KEY, kind)[0] == "True"
    assert world.status(ORDERS_KEY, "Serviceable")[1] == "Local"
    assert world.status(ONE_KEY, "Dispatching") == ("True", "Dispatching")
    assert world.status(ONE_KEY, "Ready") == ("True", "Dispatching")
    assert world.available() is Availability.READY
    for key in (ORDERS_KEY, ONE_KEY):
        assert world.get(key).metadata.finalizers == ("bus-core/demo",)
    assert [event[1] for event in world.source.events] == ["Synced", "Synced"]


def test_what_changes_nothing_calls_nothing_and_writes_nothing(world: World) -> None:
    world.settle()
    world.source.writes.clear()
    world.hooks.calls.clear()
    for _ in range(3):
        world.reconciler.reconcile(ORDERS)
    assert world.source.writes == []
    assert world.hooks.calls == []


def test_a_restart_tells_the_hooks_and_writes_nothing(world: World) -> None:
    """With ten thousand channels, an Event for each would keep the API server busy for minutes."""
    world.settle()
    world.source.writes.clear()
    world.source.events.clear()
    world.restart()
    world.settle()
    assert world.hooks.calls == [("provision", "orders"), ("subscribe", "one")]
    assert world.source.writes == []
    assert world.source.events == []


def test_a_changed_subscriber_is_told_and_nothing_else(world: World) -> None:
    world.settle()
    world.hooks.calls.clear()
    world.source.put(subscription(subscriber="http://b/"))
    world.settle()
    assert world.hooks.calls == [("subscribe", "one")]
    assert world.hooks.subscribed["one"][1] == "http://b/"


def test_a_changed_parameter_of_the_channel_reaches_both(world: World) -> None:
    world.source.put(bus(Parameter("colour", default="red")))
    world.settle()
    world.hooks.calls.clear()
    world.source.put(channel(colour="blue"))
    world.settle()
    assert world.hooks.calls == [("provision", "orders"), ("subscribe", "one")]
    assert world.hooks.provisioned["orders"] == {"colour": "blue"}


def test_a_dispatcher_waits_for_the_channel_to_be_provisioned_by_another() -> None:
    world = World(DISPATCHER, leads=())
    world.source.put(channel())
    world.source.put(subscription())
    world.settle()
    assert world.hooks.calls == []
    assert world.available() is Availability.UNPROVISIONED
    assert world.source.writes == [], "only leaders write"
    leader = World()
    leader.source, leader.cache = world.source, world.cache
    leader.reconciler = leader.make((PROVISIONER,))
    leader.settle()
    world.settle()
    assert world.hooks.calls == [("subscribe", "one")]
    assert world.available() is Availability.READY


def test_who_gains_leadership_provisions(world: World) -> None:
    world.leadership.roles.clear()
    world.settle()
    assert world.hooks.calls == []
    world.leadership.roles.update((PROVISIONER, DISPATCHER))
    world.settle()
    assert world.hooks.calls == [("provision", "orders"), ("subscribe", "one")]


def test_leadership_lost_between_the_finalizer_and_the_hook_calls_no_hook(world: World) -> None:
    add = world.source.add_finalizer

    def lose(resource: Resource, finalizer: str) -> None:
        add(resource, finalizer)
        world.leadership.roles.clear()

    world.source.add_finalizer = lose  # type: ignore[method-assign]
    world.settle()
    assert world.hooks.calls == []


def test_a_channel_of_another_bus_is_left_alone() -> None:
    world = World()
    world.source.put(channel(on="other"))
    world.source.put(subscription())
    world.settle()
    assert world.hooks.calls == []
    assert world.source.writes == []
    assert world.available() is Availability.ABSENT


def test_deletion_refuses_then_unsubscribes_then_unprovisions_after_the_grace(world: World) -> None:
    world.settle()
    world.hooks.calls.clear()
    world.source.delete(ORDERS_KEY)
    result, again = world.settle()
    assert world.available() is Availability.ABSENT
    assert world.hooks.calls == [("unsubscribe", "one")]
    assert (result, again) == ("ok", GRACE)
    world.now += GRACE
    world.settle()
    assert world.hooks.calls == [("unsubscribe", "one"), ("unprovision", "orders")]
    assert ORDERS_KEY not in world.source.objects
    assert world.status(ONE_KEY, "Dispatching") == ("False", "ChannelNotFound")


def test_a_worker_that_does_not_lead_unsubscribes_and_leaves_the_rest(world: World) -> None:
    world.settle()
    world.leadership.roles.clear()
    world.hooks.calls.clear()
    world.source.delete(ORDERS_KEY)
    world.now += GRACE
    world.settle()
    assert world.hooks.calls == [("unsubscribe", "one")]
    assert ORDERS_KEY in world.source.objects


def test_a_worker_that_missed_the_deletion_still_unsubscribes(world: World) -> None:
    world.settle()
    world.leadership.roles.clear()
    world.hooks.calls.clear()
    for key in (ONE_KEY, ORDERS_KEY):
        resource = world.get(key)
        world.source.remove_finalizer(resource, "bus-core/demo")
        world.source.delete(key)
    world.settle()
    assert world.hooks.calls == [("unsubscribe", "one")]
    assert world.reconciler.views == {}


def test_what_was_deleted_while_nobody_ran_is_undone_once(world: World) -> None:
    world.settle()
    world.restart()
    world.source.delete(ONE_KEY)
    world.source.delete(ORDERS_KEY)
    world.settle()
    world.now += GRACE
    world.settle()
    assert world.hooks.calls == [("unsubscribe", "one"), ("unprovision", "orders")]
    assert set(world.source.objects) == {ResourceKey("Bus", "default", "demo")}


def test_a_finalizer_that_cannot_be_removed_does_not_repeat_the_hook(world: World) -> None:
    world.settle()
    world.hooks.calls.clear()
    world.source.delete(ORDERS_KEY)
    world.reconciler.reconcile(ORDERS)
    world.now += GRACE
    remove = world.source.remove_finalizer

    def refuse(resource: Resource, finalizer: str) -> None:
        raise TemporaryError("the source does not answer")

    world.source.remove_finalizer = refuse  # type: ignore[method-assign]
    with pytest.raises(TemporaryError):
        world.reconciler.reconcile(ORDERS)
    world.source.remove_finalizer = remove  # type: ignore[method-assign]
    world.settle()
    assert world.hooks.count("unprovision", "orders") == 1
    assert ORDERS_KEY not in world.source.objects


def test_a_channel_made_anew_under_its_name_is_taken_apart_and_made_again(world: World) -> None:
    world.settle()
    world.hooks.calls.clear()
    old = world.source.objects.pop(ORDERS_KEY)
    assert isinstance(old, Channel)
    world.source.put(channel())
    assert world.get(ORDERS_KEY).uid != old.uid
    world.settle()
    expected = [("unsubscribe", "one"), ("unprovision", "orders"), ("provision", "orders"), ("subscribe", "one")]
    assert world.hooks.calls == expected
