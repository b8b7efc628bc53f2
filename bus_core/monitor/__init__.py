"""The Monitor: watches resources and tells a bus what to provision and whom to serve."""

from bus_core.monitor.handler import Hooks, MonitorEventHandlerFuncs
from bus_core.monitor.monitor import Monitor
from bus_core.monitor.view import Availability, ChannelView

__all__ = ["Availability", "ChannelView", "Hooks", "Monitor", "MonitorEventHandlerFuncs"]
