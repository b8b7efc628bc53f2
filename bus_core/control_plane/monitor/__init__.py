"""The monitor: watches resources, and calls hooks to provision channels and to serve subscriptions."""

from bus_core.control_plane.monitor.channel_view import Availability, ChannelView
from bus_core.control_plane.monitor.handler import Hooks, MonitorEventHandlerFuncs
from bus_core.control_plane.monitor.monitor import Monitor

__all__ = ["Availability", "ChannelView", "Hooks", "Monitor", "MonitorEventHandlerFuncs"]
