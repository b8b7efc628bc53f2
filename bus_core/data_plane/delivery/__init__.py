"""Delivery: every accepted event is delivered, dead-lettered, or counted and logged with its reason."""

from bus_core.data_plane.delivery.engine import Delivery
from bus_core.data_plane.delivery.lane import LaneLimits, Target

__all__ = ["Delivery", "LaneLimits", "Target"]
