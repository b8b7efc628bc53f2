"""What one reconcile does, rule by rule, with the clock in the test's hand."""

from __future__ import annotations

import logging

import pytest

from bus_core.conditions import Condition
from bus_core.errors import PermanentError, TemporaryError
from bus_core.monitor.cache import Cache
from bus_core.monitor.reconcile import Reconciler
from bus_core.monitor.view import Availability
from bus_core.parameters import Parameter
from bus_core.references import ChannelReference
from bus_core.resources import DISPATCHER, PROVISIONER, Channel, Resource, ResourceKey, Role, Subscription
from tests.monitor.fakes import BUS, FakeHooks, FakeLeadership, FakeSource, bus, channel, subscription

ORDERS = ChannelReference("orders")
ORDERS_KEY = ResourceKey("Channel", "default", "orders")
ONE_KEY = ResourceKey("Subscription", "default", "one")
GRACE = 5.0


class World:
    """A reconciler with everything around it; `settle` reconciles until nothing changes."""

    def __init__(
        self, *roles: Role, leads: tuple[Role, ...] = (PROVISIONER, DISPATCHER), declared: tuple[Parameter, ...] = ()
    ) -> None:
        self.now = 1000.0
        self.source = FakeSource()
        self.cache = Cache(BUS)
        self.source.on_change = lambda change: (self.cache.apply(change), None)[1]
        self.hooks = FakeHooks(declared)
        self.leadership = FakeLeadership(*leads)
        self.reconciler = self.make(roles or (PROVISIONER, DISPATCHER))
        self.source.put(bus())

    def make(self, roles: tuple[Role, ...]) -> Reconciler:
        return Reconciler(
            self.hooks,
            self.cache,
            self.source,
            self.leadership,
            roles,
            deletion_grace=GRACE,
            clock=lambda: self.now,
            jitter=lambda: 1.0,
        )

    def restart(self) -> None:
        """A new process: what hooks were told is forgotten, what the source holds is not."""
        self.hooks.calls.clear()
        self.reconciler = self.make((PROVISIONER, DISPATCHER))

    def settle(self) -> tuple[str, float | None]:
        for _ in range(10):
            writes, calls = len(self.source.writes), len(self.hooks.calls)
            result = self.reconciler.reconcile(ORDERS)
            if (writes, calls) == (len(self.source.writes), len(self.hooks.calls)):
                return result
        raise AssertionError("it does not settle")

    def get(self, key: ResourceKey) -> Resource:
        return self.source.objects[key]

    def available(self) -> Availability:
        view = self.reconciler.views.get(ORDERS)
        return view.availability if view else Availability.ABSENT

    def status(self, key: ResourceKey, kind: str) -> tuple[str, str]:
        condition = self.get(key).condition(kind)
        return (condition.status, condition.reason) if condition else ("", "")


@pytest.fixture
def world() -> World:
    made = World()
    made.source.put(channel())
    made.source.put(subscription())
    return made


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
    assert told == ["arguments are ignored, because nobody declares them: colour"]


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
