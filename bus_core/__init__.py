"""bus-core: channels and subscriptions over HTTP, with a broker of your choice behind them.

The public API is `__all__`; the rest may change without notice. `bus_core.model.errors` draws the error tree.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from bus_core.control_plane.leadership import ALWAYS, Leadership
from bus_core.driver.hookspecs import BusSyncing, Driver, DriverContext, DriverSettings, Outcome, hookimpl
from bus_core.model.errors import (
    BusError,
    BusyError,
    ConfigurationError,
    DeadlineError,
    DestinationError,
    DispatchError,
    DriverError,
    InvalidMessageError,
    ManifestError,
    MessageTooLargeError,
    ParameterError,
    PermanentError,
    ReplyError,
    ResponseError,
    TemporaryError,
    UnavailableError,
    UnknownChannelError,
    UnknownSubscriptionError,
)
from bus_core.model.headers import ForwardedHeaders
from bus_core.model.message import DispatchDefaults, Message
from bus_core.model.parameters import Parameter, ResolvedParameters
from bus_core.model.references import BusReference, ChannelReference, SubscriptionReference
from bus_core.model.resources import (
    DISPATCHER,
    PROVISIONER,
    Bus,
    BusSpec,
    Channel,
    ChannelSpec,
    ClusterBus,
    Metadata,
    Subscription,
    SubscriptionSpec,
)
from bus_core.model.specs import DeliverySpec
from bus_core.telemetry import Counter, Gauge

if TYPE_CHECKING:
    from bus_core.control_plane.leadership.file_lock import FileLock
    from bus_core.control_plane.monitor import Monitor, MonitorEventHandlerFuncs
    from bus_core.control_plane.sources.folder.source import ManifestSource
    from bus_core.data_plane.dispatch import MessageDispatcher
    from bus_core.data_plane.receiver.receiver import MessageReceiver

__version__ = "0.1.0"

# Imported at first use, because they import Falcon and gunicorn, which a driver's module does not need.
_LATE = {
    "FileLock": "bus_core.control_plane.leadership.file_lock",
    "ManifestSource": "bus_core.control_plane.sources.folder.source",
    "MessageDispatcher": "bus_core.data_plane.dispatch",
    "MessageReceiver": "bus_core.data_plane.receiver.receiver",
    "Monitor": "bus_core.control_plane.monitor",
    "MonitorEventHandlerFuncs": "bus_core.control_plane.monitor",
}

__all__ = [
    "ALWAYS",
    "DISPATCHER",
    "PROVISIONER",
    "Bus",
    "BusError",
    "BusReference",
    "BusSpec",
    "BusSyncing",
    "BusyError",
    "Channel",
    "ChannelReference",
    "ChannelSpec",
    "ClusterBus",
    "ConfigurationError",
    "Counter",
    "DeadlineError",
    "DeliverySpec",
    "DestinationError",
    "DispatchDefaults",
    "DispatchError",
    "Driver",
    "DriverContext",
    "DriverError",
    "DriverSettings",
    "FileLock",
    "ForwardedHeaders",
    "Gauge",
    "InvalidMessageError",
    "Leadership",
    "ManifestError",
    "ManifestSource",
    "Message",
    "MessageDispatcher",
    "MessageReceiver",
    "MessageTooLargeError",
    "Metadata",
    "Monitor",
    "MonitorEventHandlerFuncs",
    "Outcome",
    "Parameter",
    "ParameterError",
    "PermanentError",
    "ReplyError",
    "ResolvedParameters",
    "ResponseError",
    "Subscription",
    "SubscriptionReference",
    "SubscriptionSpec",
    "TemporaryError",
    "UnavailableError",
    "UnknownChannelError",
    "UnknownSubscriptionError",
    "hookimpl",
]


def __getattr__(name: str) -> Any:
    try:
        module = _LATE[name]
    except KeyError:
        raise AttributeError(f"module 'bus_core' has no attribute {name!r}") from None
    return getattr(import_module(module), name)
