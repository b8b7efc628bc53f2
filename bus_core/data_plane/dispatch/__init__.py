"""Dispatch: sends events over HTTP. One POST, one deadline, one complete answer."""

from bus_core.data_plane.dispatch.connection import Connection
from bus_core.data_plane.dispatch.dispatcher import MessageDispatcher, Route
from bus_core.data_plane.dispatch.encoding import FRAMING_HEADERS, Encoded, encode
from bus_core.data_plane.dispatch.pool import Pool
from bus_core.data_plane.dispatch.reply import Reply

__all__ = ["FRAMING_HEADERS", "Connection", "Encoded", "MessageDispatcher", "Pool", "Reply", "Route", "encode"]
