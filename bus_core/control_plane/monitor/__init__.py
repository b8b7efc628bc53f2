"""Monitor: watches the resources of one bus and calls the hooks that they require."""

from bus_core.control_plane.monitor.channel_view import Availability, ChannelView
from bus_core.control_plane.monitor.handler import Hooks, MonitorEventHandlerFuncs
from bus_core.control_plane.monitor.monitor import Monitor

__all__ = ["Availability", "ChannelView", "Hooks", "Monitor", "MonitorEventHandlerFuncs"]
