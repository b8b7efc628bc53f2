"""Model: the names of buses, channels and subscriptions. Frozen, hashable, safe to share between threads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from bus_core.model.errors import ConfigurationError, InvalidMessageError

DEFAULT_NAMESPACE = "default"
MAX_HOST_LENGTH = 253
"""The longest DNS name in characters (RFC 1035, section 2.3.4, without the final dot)."""

CHANNEL_SERVICE_SUFFIX = "-channel"
"""Ends the name of a channel's Service: `orders-channel` is the Service of the channel `orders`."""


@dataclass(frozen=True, slots=True)
class BusReference:
    """A Bus (`namespace/name`) or, without a namespace, a ClusterBus (`name`)."""

    name: str
    namespace: str = ""

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}" if self.namespace else self.name

    @property
    def is_cluster_bus(self) -> bool:
        return not self.namespace

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `[NAMESPACE/]NAME` as the command line writes it.

        Raises:
            ConfigurationError: the text is empty, has an empty part, or has more than one slash.
        """
        namespace, _, name = text.rpartition("/")
        if not name or "/" in namespace or (not namespace and text.startswith("/")):
            raise ConfigurationError(
                f"{text!r} does not name a bus: write NAMESPACE/NAME for a Bus, NAME for a ClusterBus"
            )
        return cls(name, namespace)


@dataclass(frozen=True, slots=True)
class ChannelReference:
    """A channel; `str()` is `namespace/name`."""

    name: str
    namespace: str = DEFAULT_NAMESPACE

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"

    @classmethod
    def from_host(cls, host: str) -> Self:
        """Read the channel from a Host header: `NAME.NAMESPACE[.anything][:port]`, upper or lower case.

        If the third label is `svc`, the name is that of a Kubernetes Service, and its suffix `-channel` is removed.

        Raises:
            InvalidMessageError: the host has no dot or an empty label, is too long for a DNS name, or is an IP address.
        """
        name = host.rpartition(":")[0] if ":" in host else host
        if len(name) > MAX_HOST_LENGTH:
            raise InvalidMessageError(
                f"the Host header is {len(name)} characters long; a DNS name has at most {MAX_HOST_LENGTH}"
            )
        labels = name.lower().split(".")
        is_address = len(labels) == 4 and all(label.isdigit() for label in labels)
        is_whole = len(labels) > 1 and all(labels[:-1]) and (labels[-1] or len(labels) > 2)
        if is_address or not is_whole or not _is_dns(labels):
            raise InvalidMessageError(
                f"the Host header {host[:80]!r} does not name a channel: send to NAME.NAMESPACE, such as orders.default"
            )
        channel = labels[0]
        if len(labels) > 2 and labels[2] == "svc":
            channel = channel.removesuffix(CHANNEL_SERVICE_SUFFIX) or channel
        return cls(channel, labels[1])


@dataclass(frozen=True, slots=True)
class SubscriptionReference:
    """A subscription; `str()` is `namespace/name`."""

    name: str
    namespace: str = DEFAULT_NAMESPACE

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


def _is_dns(labels: list[str]) -> bool:
    return all(label.replace("-", "").replace("_", "").isalnum() and label.isascii() for label in labels if label)
