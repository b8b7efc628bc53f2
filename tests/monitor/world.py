"""A reconciler with everything around it, and the clock in the test's hand."""

from __future__ import annotations

from bus_core.control_plane.monitor.cache import Cache
from bus_core.control_plane.monitor.channel_view import Availability
from bus_core.control_plane.monitor.context import ReconcileContext
from bus_core.control_plane.monitor.reconcile import Reconciler
from bus_core.model.parameters import Parameter
from bus_core.model.references import ChannelReference
from bus_core.model.resources import DISPATCHER, PROVISIONER, Resource, ResourceKey, Role
from tests.monitor.fakes import BUS, FakeHooks, FakeLeadership, FakeSource, bus

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
        context = ReconcileContext(
            self.hooks,
            self.cache,
            self.source,
            self.leadership,
            roles,
            deletion_grace=GRACE,
            clock=lambda: self.now,
            jitter=lambda: 1.0,
        )
        return Reconciler(context)

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
