"""The Monitor as a program uses it, with threads, and a model of everything that can happen to resources."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bus_core import ConfigurationError, Monitor, MonitorEventHandlerFuncs, PermanentError, TemporaryError
from bus_core.control_plane.monitor.channel_view import Availability
from bus_core.control_plane.monitor.monitor import NotSyncedError
from bus_core.model.parameters import Parameter, ResolvedParameters
from bus_core.model.references import ChannelReference
from bus_core.model.resources import DISPATCHER, PROVISIONER, Channel, ResourceKey, Role
from tests.monitor.fakes import FakeHooks, FakeLeadership, FakeSource, bus, channel, subscription
from tests.support import wait_for

ORDERS = ChannelReference("orders")


@contextmanager
def running(monitor: Monitor) -> Iterator[threading.Event]:
    stop = threading.Event()
    thread = threading.Thread(target=monitor.run, args=("default", "demo", 3, stop))
    thread.start()
    try:
        yield stop
    finally:
        stop.set()
        thread.join(10)
        assert not thread.is_alive()


def test_handler_functions_get_resources_and_define_the_roles() -> None:
    source, got = FakeSource(), []
    source.put(bus())
    source.put(channel())
    source.put(subscription())
    handlers = MonitorEventHandlerFuncs(
        bus_func=lambda b: got.append(("bus", b.name)),
        provision_func=lambda c, p: got.append(("provision", c.name)),
        subscribe_func=lambda s, p: got.append(("subscribe", s.name)),
    )
    assert handlers.roles == (PROVISIONER, DISPATCHER)
    assert MonitorEventHandlerFuncs(unsubscribe_func=print).roles == (DISPATCHER,)
    monitor = Monitor("test", handler=handlers, source=source)
    assert monitor.channel("orders", "default") is None
    assert monitor.subscriptions("orders", "default") is None
    with running(monitor) as stop:
        monitor.wait_for_cache_sync(stop)
        wait_for(lambda: monitor.subscription("one", "default"))
        assert got == [("bus", "demo"), ("provision", "orders"), ("subscribe", "one")]
        found = monitor.channel("orders", "default")
        assert found is not None
        assert found.is_true("Provisioned")
        specs = monitor.subscriptions("orders", "default")
        assert specs is not None
        assert [spec.subscriber for spec in specs] == ["http://a/"]
        assert monitor.lookup(ORDERS).availability is Availability.READY
        assert monitor.lookup(ChannelReference("nowhere")).availability is Availability.ABSENT
        one = monitor.subscription("one", "default")
        assert one is not None
        monitor.requeue_subscription(one)
        wait_for(lambda: got.count(("subscribe", "one")) == 2)
        wait_for(lambda: source.objects[ResourceKey("Bus", "default", "demo")].is_true("Ready"))


def test_a_channel_that_waits_for_its_turn_exists() -> None:
    source, hooks, go = FakeSource(), FakeHooks(), threading.Event()
    source.put(bus())
    monitor = Monitor("test", handler=hooks, source=source)
    with running(monitor) as stop:
        monitor.wait_for_cache_sync(stop)
        provision = hooks.provision

        def slow(channel: Channel, parameters: ResolvedParameters) -> None:
            go.wait(10)
            provision(channel, parameters)

        hooks.provision = slow  # type: ignore[method-assign]
        names = [f"c{number}" for number in range(5)]  # one more than are reconciled at once
        for name in names:
            source.put(channel(name))
        try:
            found = {monitor.lookup(ChannelReference(name)).availability for name in names}
            assert found == {Availability.UNPROVISIONED}
            assert monitor.lookup(ChannelReference("nowhere")).availability is Availability.ABSENT
        finally:
            go.set()
        for name in names:
            wait_for(lambda name=name: monitor.lookup(ChannelReference(name)).availability is Availability.READY)  # type: ignore[misc]


def test_before_it_has_synced_nothing_is_absent() -> None:
    monitor = Monitor("test", handler=MonitorEventHandlerFuncs(), source=FakeSource())
    assert monitor.lookup(ORDERS).availability is Availability.UNSYNCED
    assert monitor.problems() == ["resources have not been read yet"]
    stop = threading.Event()
    stop.set()
    with pytest.raises(NotSyncedError):
        monitor.wait_for_cache_sync(stop)


def test_a_channel_is_served_as_soon_as_it_is_ready_whatever_the_first_pass_still_waits_for() -> None:
    source, held = FakeSource(), threading.Event()
    source.put(bus())
    source.put(channel())
    source.put(channel("slow"))

    def provision(channel: Channel, parameters: ResolvedParameters) -> None:
        if channel.name == "slow":
            held.wait(30)

    monitor = Monitor("test", handler=MonitorEventHandlerFuncs(provision_func=provision), source=source)
    with running(monitor):
        wait_for(lambda: monitor.lookup(ORDERS).availability is Availability.READY)
        assert monitor.lookup(ChannelReference("slow")).availability is Availability.UNPROVISIONED
        assert monitor.lookup(ChannelReference("nowhere")).availability is Availability.UNSYNCED
        assert monitor.problems() == ["resources have not been read yet"]
        held.set()
        wait_for(lambda: monitor.lookup(ChannelReference("slow")).availability is Availability.READY)


def test_a_missing_bus_is_a_problem_and_its_coming_cures_it() -> None:
    source, hooks = FakeSource(), FakeHooks()
    source.put(channel())
    monitor = Monitor("test", handler=hooks, source=source)
    with running(monitor) as stop:
        monitor.wait_for_cache_sync(stop)
        assert monitor.problems() == ["the bus default/demo does not exist"]
        assert hooks.calls == []
        source.put(bus())
        wait_for(lambda: monitor.channel("orders", "default"))
        assert hooks.calls[0] == ("sync_bus", "demo")
        assert monitor.problems() == []


def test_a_bus_that_is_not_taken_is_tried_again_while_channels_go_on() -> None:
    source, hooks = FakeSource(), FakeHooks()
    source.put(bus())
    source.put(channel())
    hooks.fail["sync_bus", "demo"] = RuntimeError("not today")
    monitor = Monitor("test", handler=hooks, source=source)
    with running(monitor):
        wait_for(lambda: hooks.count("sync_bus", "demo") > 1)
        wait_for(lambda: monitor.channel("orders", "default"))
        assert "not today" in monitor.problems()[0]
        hooks.fail.clear()
        wait_for(lambda: monitor.problems() == [])


def test_outside_a_cluster_it_says_what_to_give() -> None:
    with pytest.raises(ConfigurationError, match="--kubeconfig"):
        Monitor("test", handler=MonitorEventHandlerFuncs())
    with pytest.raises(ConfigurationError, match="no such file"):
        Monitor("test", "", "/nowhere/kubeconfig", handler=MonitorEventHandlerFuncs())


def test_a_stop_calls_no_hook_and_gives_up_leadership() -> None:
    source, hooks, leadership = FakeSource(), FakeHooks(), FakeLeadership(PROVISIONER, DISPATCHER)
    source.put(bus())
    source.put(channel())
    source.put(subscription())
    monitor = Monitor("test", handler=hooks, source=source, leadership=leadership)
    with running(monitor):
        wait_for(lambda: monitor.subscription("one", "default"))
    assert not {hook for hook, _ in hooks.calls} & {"unsubscribe", "unprovision"}
    assert leadership.released


NAMES = ("a", "b")
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("channel"), st.sampled_from(NAMES), st.sampled_from(["1", "2"])),
        st.tuples(
            st.just("subscription"), st.sampled_from(["s", "t", "u"]), st.sampled_from(["http://x/", "http://y/"])
        ),
        st.tuples(st.just("delete channel"), st.sampled_from(NAMES), st.just("")),
        st.tuples(st.just("delete subscription"), st.sampled_from(["s", "t", "u"]), st.just("")),
        st.tuples(st.just("lead"), st.sampled_from([PROVISIONER, DISPATCHER]), st.just("")),
        st.tuples(st.just("lose"), st.sampled_from([PROVISIONER, DISPATCHER]), st.just("")),
        st.tuples(
            st.just("fail"),
            st.sampled_from(["provision a", "subscribe s", "unsubscribe t", "unprovision b"]),
            st.sampled_from(["temporary", "permanent", "other"]),
        ),
        st.tuples(st.just("heal"), st.just(""), st.just("")),
    ),
    max_size=25,
)
ERRORS = {"temporary": TemporaryError("t", 0.01), "permanent": PermanentError("p"), "other": RuntimeError("o")}


@settings(max_examples=60, deadline=None)
@given(steps=STEPS)
def test_in_the_end_what_hooks_were_told_is_what_is_wanted(steps: list[tuple[str, str, str]]) -> None:
    source, hooks, leadership = FakeSource(), FakeHooks(), FakeLeadership()
    source.put(bus())
    hooks.declared = (Parameter("n", default="0"),)
    monitor = Monitor("test", handler=hooks, source=source, leadership=leadership, deletion_grace=0.0)
    with running(monitor) as stop:
        monitor.wait_for_cache_sync(stop)
        for what, name, value in steps:
            play(source, hooks, leadership, what, name, value)
        hooks.fail.clear()
        roles: tuple[Role, ...] = (PROVISIONER, DISPATCHER)
        for role in roles:
            leadership.gain(role)
        # A permanent failure waits for a change: touch everything that is left.
        for key, resource in list(source.objects.items()):
            if key.kind == "Channel" and not resource.deleted:
                source.put(channel(key.name, n="9"))
        for key, resource in list(source.objects.items()):
            if key.kind == "Subscription" and not resource.deleted:
                source.put(subscription(key.name, f"{(key.name in 'tu' and 'b') or 'a'}", "http://z/"))
        wait_for(lambda: settled(source, hooks), 15, "told is what is wanted")


def play(source: FakeSource, hooks: FakeHooks, leadership: FakeLeadership, what: str, name: str, value: str) -> None:
    key = ResourceKey("Channel", "default", name)
    if what == "channel":
        if key not in source.objects or not source.objects[key].deleted:
            source.put(channel(name, n=value))
    elif what == "subscription":
        key = ResourceKey("Subscription", "default", name)
        if key not in source.objects or not source.objects[key].deleted:
            source.put(subscription(name, "b" if name in "tu" else "a", value))
    elif what == "delete channel":
        source.delete(key)
    elif what == "delete subscription":
        source.delete(ResourceKey("Subscription", "default", name))
    elif what == "lead":
        leadership.gain(PROVISIONER if name == PROVISIONER else DISPATCHER)
    elif what == "lose":
        leadership.roles.discard(PROVISIONER if name == PROVISIONER else DISPATCHER)
    elif what == "fail":
        hook, _, about = name.partition(" ")
        hooks.fail[hook, about] = ERRORS[value]
    else:
        hooks.fail.clear()


def settled(source: FakeSource, hooks: FakeHooks) -> bool:
    objects = dict(source.objects)
    if any(resource.deleted for resource in objects.values()):
        return False
    channels = {key.name for key in objects if key.kind == "Channel"}
    wanted = {
        key.name for key in objects if key.kind == "Subscription" and ("b" if key.name in "tu" else "a") in channels
    }
    return (
        set(hooks.provisioned) == channels
        and all(parameters == {"n": "9"} for parameters in hooks.provisioned.values())
        and set(hooks.subscribed) == wanted
        and all(told[1] == "http://z/" for told in hooks.subscribed.values())
    )


def test_credentials_that_are_rejected_make_a_host_unready_although_it_has_synced() -> None:
    source = FakeSource()
    source.put(bus())
    monitor = Monitor("test", handler=FakeHooks(), source=source)
    with running(monitor) as stop:
        monitor.wait_for_cache_sync(stop)
        assert monitor.problems() == []
        source.rejected = ["the API server rejects the credentials"]
        assert monitor.problems() == source.rejected


def test_a_write_that_is_not_taken_is_logged_when_its_reason_changes(caplog: pytest.LogCaptureFixture) -> None:
    source, tries = FakeSource(), []
    source.put(bus())
    source.put(channel())

    def refuse(*_: object) -> None:
        tries.append(1)
        raise TemporaryError("away" if len(tries) < 4 else "slow")

    source.add_finalizer = refuse  # type: ignore[assignment,method-assign]
    monitor = Monitor("test", handler=FakeHooks(), source=source)
    with caplog.at_level(logging.INFO), running(monitor):
        wait_for(lambda: len(tries) >= 6)
    said = [vars(record) for record in caplog.records if "a write failed" in record.getMessage()]
    assert [str(record["detail"]) for record in said] == ["away", "slow"]
