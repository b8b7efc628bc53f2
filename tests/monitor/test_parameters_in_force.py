"""The parameters that `receive` and `subscribe` get are those that `provision` succeeded with, in every process."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bus_core.control_plane.monitor.channel_view import Availability
from bus_core.model.errors import PermanentError
from bus_core.model.parameters import Parameter, ResolvedParameters
from bus_core.model.resources import DISPATCHER, PROVISIONER, Channel
from tests.monitor.fakes import FakeHooks, FakeLeadership, bus, channel, subscription
from tests.monitor.world import GRACE, ORDERS, ORDERS_KEY, World

COLOUR = Parameter("colour", default="red")
REFUSED = PermanentError("not that colour")


@pytest.fixture
def red(world: World) -> World:
    """The channel is provisioned as red; what comes next is refused."""
    world.source.put(bus(COLOUR))
    world.settle()
    world.hooks.fail["provision", "orders"] = REFUSED
    return world


def in_force(world: World) -> ResolvedParameters:
    view = world.reconciler.views[ORDERS]
    assert view.availability is Availability.READY
    return view.parameters


def another(world: World) -> World:
    """A worker that does not lead, beside the first one."""
    worker = World()
    worker.source, worker.cache = world.source, world.cache
    worker.leadership = FakeLeadership()
    worker.reconciler = worker.make((PROVISIONER, DISPATCHER))
    return worker


def test_an_edit_that_is_refused_does_not_reach_the_events(red: World) -> None:
    red.source.put(channel(colour="blue"))
    red.settle()
    assert in_force(red) == {"colour": "red"}
    red.hooks.fail.clear()
    red.source.put(channel(colour="green"))
    red.settle()
    assert in_force(red) == {"colour": "green"}


def test_nor_does_a_default_of_the_bus(red: World) -> None:
    red.source.put(bus(Parameter("colour", default="blue")))
    red.settle()
    assert red.status(ORDERS_KEY, "Provisioned") == ("True", "UpdateFailed")
    assert in_force(red) == {"colour": "red"}


def test_a_new_process_knows_what_was_provisioned_before_it(red: World) -> None:
    red.source.put(channel(colour="blue"))
    red.settle()
    red.restart()
    red.settle()
    assert red.hooks.count("provision", "orders") == 1, "it tries, and is refused as well"
    assert in_force(red) == {"colour": "red"}


def test_a_worker_that_does_not_lead_learns_it_from_the_status(red: World) -> None:
    worker = another(red)
    worker.settle()
    red.source.put(channel(colour="blue"))
    red.settle()
    worker.settle()
    late = another(red)
    late.settle()
    assert [in_force(each) for each in (worker, late)] == [{"colour": "red"}] * 2
    red.hooks.fail.clear()
    red.source.put(channel(colour="green"))
    worker.settle()
    assert in_force(worker) == {"colour": "red"}, "nobody has provisioned it as green yet"
    red.settle()
    worker.settle()
    assert in_force(worker) == {"colour": "green"}
    assert "provision" not in {hook for hook, _ in worker.hooks.calls}


def test_subscribe_and_unprovision_get_the_same(red: World) -> None:
    told: list[ResolvedParameters] = []

    class Hooks(FakeHooks):
        def subscribe(self, *arguments: object) -> None:
            told.append(arguments[3])  # type: ignore[arg-type]

        def unprovision(self, channel: Channel, parameters: ResolvedParameters) -> None:
            told.append(parameters)

    red.hooks = Hooks()
    red.hooks.fail["provision", "orders"] = REFUSED
    red.reconciler = red.make((PROVISIONER, DISPATCHER))
    red.source.put(channel(colour="blue"))
    red.settle()
    red.source.delete(ORDERS_KEY)
    red.settle()
    red.now += GRACE
    red.settle()
    assert told == [{"colour": "red"}, {"colour": "red"}]


def test_a_status_of_an_earlier_version_counts_for_what_the_channel_asks(red: World) -> None:
    now = red.source.objects[ORDERS_KEY]
    red.source.objects[ORDERS_KEY] = old = replace(now, provisioned_parameters=None)
    worker = another(red)
    red.source.put(old)
    worker.settle()
    assert in_force(worker) == {"colour": "red"}


def test_a_parameter_that_is_required_since_then_stops_nothing_that_works(red: World) -> None:
    red.source.put(bus(COLOUR, Parameter("size")))
    red.source.put(subscription("two"))
    red.settle()
    assert red.status(ORDERS_KEY, "Ready") == ("False", "MissingParameter")
    assert in_force(red) == {"colour": "red"}
    assert set(red.hooks.subscribed) == {"one", "two"}


def test_a_leader_provisions_again_what_another_one_changed_meanwhile(world: World) -> None:
    world.source.put(bus(COLOUR))
    world.settle()
    world.leadership.roles.clear()
    other = another(world)
    other.leadership.roles.update((PROVISIONER, DISPATCHER))
    world.source.put(channel(colour="blue"))
    other.settle()
    other.leadership.roles.clear()
    world.settle()
    world.source.put(channel(colour="red"))
    world.leadership.roles.update((PROVISIONER, DISPATCHER))
    world.reconciler.gained(PROVISIONER)
    world.settle()
    assert world.hooks.count("provision", "orders") == 2
    assert in_force(world) == {"colour": "red"}
