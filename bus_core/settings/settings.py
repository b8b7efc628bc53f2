"""Settings: the declaration of every setting of the host. Flags, variables and file keys follow from it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr

ENV_PREFIX = "BUS_"


def flag_name(name: str) -> str:
    """The flag of a setting: `drain_timeout` is `--drain-timeout`."""
    return f"--{name.replace('_', '-')}"


class Settings(BaseModel):
    """The settings of `bus run`. `bus_core.settings.resolve.load_settings` makes them from the layers.

    Example: the field `drain_timeout` is the flag `--drain-timeout`, the environment variable `BUS_DRAIN_TIMEOUT` and
    the key `drain_timeout` of the file that `--config` names. A flag wins over the environment, the environment over
    the file, the file over the default. Instances are immutable, so any thread may read them.

    The class is wide on purpose: it is the only source of flags, variables and the table of docs/settings.md.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)

    bus: str = Field("", description="The bus to serve: NAMESPACE/NAME for a Bus, NAME for a ClusterBus.")
    namespace: str = Field("", description="Namespace of the bus (environment only).")
    name: str = Field("", description="Name of the bus (environment only).")
    manifests: Path | None = Field(None, description="Folder of manifests to read and watch.")
    kubeconfig: Path | None = Field(None, description="Kubeconfig file of the cluster to watch.")
    master: str = Field("", description="Address of the API server to watch; overrides the kubeconfig's.")
    service: str = Field(
        "",
        description="Service of a bus in a cluster, [NAMESPACE/]NAME [default: NAME-bus beside the Bus].",
    )
    watch_timeout: float = Field(
        70.0, gt=0, description="Seconds without a byte after which the host restarts a watch of the API server."
    )
    lease_duration: float = Field(
        10.0, ge=1, description="Seconds until another host takes over from a dead leader, in a cluster."
    )
    driver: str = Field("", description="Driver to use if the Bus does not name one.")
    role: Literal["all", "provisioner", "dispatcher"] = Field("all", description="Roles of this process.")
    bind: str = Field("127.0.0.1:8080", description="HOST:PORT to receive events on.")
    admin_bind: str = Field("127.0.0.1:9090", description="HOST:PORT for /livez, /readyz and /metrics.")
    workers: int = Field(1, ge=1, le=64, description="Worker processes.")
    state_dir: Path | None = Field(
        None, description="Folder for status and last valid specs [default: below $XDG_STATE_HOME/bus-core]."
    )
    allow_empty: bool = Field(False, description="Let an empty manifest folder delete every channel.")
    config: Path | None = Field(None, description="YAML file with settings.")
    secrets_dir: Path | None = Field(None, description="Folder with one file per secret, named like its variable.")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Lowest level to log.")
    log_format: Literal["auto", "human", "json"] = Field(
        "auto", description="auto: human on a terminal, JSON elsewhere."
    )
    forward_headers: str = Field("", description="More headers to forward, comma-separated; NAME- is a prefix.")
    max_body: int = Field(1 << 20, ge=1, description="Largest event in bytes.")
    max_connections: int = Field(1000, ge=1, description="Open connections per worker.")
    lane_events: int = Field(10_000, ge=1, description="Events that may wait for one subscription.")
    lane_bytes: int = Field(32 << 20, ge=1, description="Bytes that may wait for one subscription.")
    lane_in_flight: int = Field(8, ge=1, description="Concurrent deliveries to one subscription.")
    stall_after: float = Field(
        30.0, ge=0, description="Seconds without a success after which a full lane sheds events."
    )
    drain_timeout: float = Field(30.0, ge=0, description="Seconds to deliver accepted events at shutdown.")
    deletion_grace: float = Field(5.0, ge=0, description="Seconds between a channel's deletion and its unprovisioning.")

    _places: Mapping[str, str] = PrivateAttr(default_factory=dict)

    @property
    def bus_name(self) -> str:
        """`[NAMESPACE/]NAME` from the flag, or from `BUS_NAMESPACE` and `BUS_NAME`; empty if none is set."""
        if self.bus or not self.name:
            return self.bus
        return f"{self.namespace}/{self.name}" if self.namespace else self.name

    def origin(self, name: str) -> str:
        """The place where a setting was set, for an error message: its flag, its variable, or the line of the file."""
        return self._places.get(name, flag_name(name))

    def with_places(self, places: Mapping[str, str]) -> Self:
        """A copy that knows the place of each setting, for `origin`."""
        made = self.model_copy()
        made._places = dict(places)
        return made
