"""Host: one worker's share of a bus. It creates the parts, connects them, and starts and stops them.

Events go server → receiver → admission → driver → delivery → dispatch; resources go source → monitor → hooks → driver.
The two streams meet only here. `bus_core.host.upcalls` lists the calls that lead upward.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading

from bus_core import telemetry
from bus_core.admin import AdminApp
from bus_core.control_plane.monitor import Monitor
from bus_core.data_plane.delivery import Delivery, LaneLimits
from bus_core.data_plane.dispatch import MessageDispatcher
from bus_core.data_plane.receiver.receiver import MessageReceiver
from bus_core.data_plane.server import ASGIApp, Connections
from bus_core.driver.calls import DriverHooks
from bus_core.driver.hookspecs import DriverContext
from bus_core.host.admission import Admission
from bus_core.host.hooks import HostHooks
from bus_core.host.monitor_thread import MonitorThread
from bus_core.host.run_config import RunConfig
from bus_core.host.shutdown import Parts, Shutdown
from bus_core.host.upcalls import Upcalls
from bus_core.model.headers import ForwardedHeaders


class Host:
    """One worker's share of a bus: a `bus_core.data_plane.server.Service`.

    Args:
        config: the run config, shared by all workers.
        events: the address for events.
        admin: the address for health and metrics.

    Raises:
        ConfigurationError: the driver, or the source of the resources, cannot be used.
        Exception: any other error of the driver's `__init__`.
    """

    def __init__(self, config: RunConfig, events: tuple[str, int], admin: tuple[str, int]) -> None:
        settings = config.settings
        forwarded = ForwardedHeaders(name for name in settings.forward_headers.split(",") if name.strip())
        upcalls = Upcalls(config, events)
        dispatcher = MessageDispatcher(forwarded=forwarded, local=upcalls.local_destination)
        limits = LaneLimits(settings.lane_events, settings.lane_bytes, settings.lane_in_flight, settings.stall_after)
        self.delivery = Delivery(dispatcher, limits=limits, report=upcalls.subscriber_report)
        context = DriverContext(
            bus=config.bus,
            settings=config.driver_settings,
            logger=telemetry.get_logger(f"bus_core.driver.{config.driver.name}").bind(bus=str(config.bus)),
            exit_stack=contextlib.ExitStack(),
            stopping=threading.Event(),
            publish=self.delivery.publish,
            submit=self.delivery.submit,
            report=upcalls.report,
            forwarded=forwarded,
        )
        driver = config.driver.construct(context)
        hooks = HostHooks(driver, self.delivery)
        leadership = config.leadership()
        self.monitor = Monitor(
            "bus-core",
            handler=hooks,
            source=config.source(),
            leadership=leadership,
            roles=config.roles,
            deletion_grace=settings.deletion_grace,
        )
        upcalls.connect(self.monitor)
        self._monitor_thread = MonitorThread(self.monitor, leadership, config.bus)
        receiver = _make_receiver(config, Admission(config.bus, self.monitor, driver), driver, forwarded)
        admin_app = AdminApp(ready=self.problems, metrics=telemetry.exposition)
        self._shutdown = Shutdown(
            Parts(
                receiver=receiver,
                hooks=hooks,
                monitor=self._monitor_thread,
                driver_stopping=context.stopping,
                driver_exit=context.exit_stack,
                delivery=self.delivery,
                dispatcher=dispatcher,
            ),
            settings.drain_timeout,
        )
        self._admin = admin
        self._admin_app = admin_app
        self._receiver = receiver

    def app_at(self, address: tuple[str, int]) -> ASGIApp:
        """The admin pages for the admin socket, the receiver for the other socket."""
        app: ASGIApp = self._admin_app.asgi if address == self._admin else self._receiver.asgi
        return app

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Start watching. Returns at once. Until the resources have been read, senders get 503."""
        self.delivery.attach(loop)
        self._monitor_thread.start()

    def problems(self) -> list[str]:
        """Why this worker is not ready; empty when it is. Thread-safe."""
        return ["the bus is stopping"] if self._shutdown.has_begun else self._monitor_thread.problems()

    async def stop(self, connections: Connections) -> None:
        """Shut down: see `bus_core.host.shutdown`."""
        await self._shutdown.run(connections)


def _make_receiver(
    config: RunConfig, admission: Admission, driver: DriverHooks, forwarded: ForwardedHeaders
) -> MessageReceiver:
    receive = admission.receive_async if driver.receive_is_async else admission.receive
    return MessageReceiver(receive, max_body_bytes=config.settings.max_body, forwarded=forwarded)
