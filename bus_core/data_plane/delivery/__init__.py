"""Delivery: every accepted event is delivered, dead-lettered, or counted and logged with its reason."""

from bus_core.data_plane.delivery.delivery import Delivery
from bus_core.data_plane.delivery.lane import LaneLimits, Target

__all__ = ["Delivery", "LaneLimits", "Target"]
