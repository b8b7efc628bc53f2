"""Sends events over HTTP: one POST, one deadline, one complete answer. The sole importer of urllib3 and httptools."""

from bus_core.data_plane.dispatch.connection import PlainConnection
from bus_core.data_plane.dispatch.dispatcher import MessageDispatcher, Route
from bus_core.data_plane.dispatch.encoding import FRAMING_HEADERS, Encoded, encode
from bus_core.data_plane.dispatch.reply import Reply

__all__ = ["FRAMING_HEADERS", "Encoded", "MessageDispatcher", "PlainConnection", "Reply", "Route", "encode"]
