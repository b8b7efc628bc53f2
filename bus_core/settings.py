"""Every setting of the host, once: flag, environment variable, place in a file, default and help."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar, cast

import yaml
from pydantic import BaseModel, Field, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from bus_core.errors import ConfigurationError

ENV_PREFIX = "BUS_"

M = TypeVar("M", bound=BaseModel)


class Settings(BaseSettings):
    """The settings of `bus run`. A field `drain_timeout` is the flag `--drain-timeout`, the environment variable
    `BUS_DRAIN_TIMEOUT` and the key `drain_timeout` of the file that `--config` names; a flag goes before the
    environment, that before the file."""

    model_config = SettingsConfigDict(env_prefix=ENV_PREFIX, extra="forbid", frozen=True, validate_default=True)

    bus: str = Field("", description="The bus to serve: NAMESPACE/NAME for a Bus, NAME for a ClusterBus.")
    namespace: str = Field("", description="Namespace of the bus, where the environment names it.")
    name: str = Field("", description="Name of the bus, where the environment names it.")
    manifests: Path | None = Field(None, description="Folder of manifests to read and watch.")
    kubeconfig: Path | None = Field(None, description="Kubeconfig file of the cluster to watch.")
    master: str = Field("", description="Address of the API server to watch; goes before the kubeconfig's.")
    service: str = Field(
        "",
        description="Labelled Service before a bus in a cluster, [NAMESPACE/]NAME [default: NAME-bus beside the Bus].",
    )
    watch_timeout: float = Field(
        70.0, gt=0, description="Seconds without a byte until a watch of the API server counts as lost."
    )
    lease_duration: float = Field(
        10.0, ge=1, description="Seconds after which another host leads where a leader in a cluster has died."
    )
    driver: str = Field("", description="Driver to use where the Bus does not name one.")
    role: Literal["all", "provisioner", "dispatcher"] = Field("all", description="Which roles this process plays.")
    bind: str = Field("127.0.0.1:8080", description="HOST:PORT to receive events on.")
    admin_bind: str = Field("127.0.0.1:9090", description="HOST:PORT for /livez, /readyz and /metrics.")
    workers: int = Field(1, ge=1, le=64, description="Worker processes.")
    state_dir: Path | None = Field(
        None, description="Where status and last good specs are kept [default: below $XDG_STATE_HOME/bus-core]."
    )
    allow_empty: bool = Field(False, description="An empty manifest folder deletes every channel.")
    config: Path | None = Field(None, description="YAML file with settings.")
    secrets_dir: Path | None = Field(None, description="Folder with one file a secret, named like its variable.")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="How much to log.")
    log_format: Literal["auto", "human", "json"] = Field("auto", description="auto: human on a terminal, else JSON.")
    forward_headers: str = Field("", description="Further headers to hand on, comma-separated; NAME- is a prefix.")
    max_body: int = Field(1 << 20, ge=1, description="Largest event in bytes.")
    max_connections: int = Field(1000, ge=1, description="Open connections a worker accepts.")
    lane_events: int = Field(10_000, ge=1, description="Events that may wait for one subscription.")
    lane_bytes: int = Field(32 << 20, ge=1, description="Bytes that may wait for one subscription.")
    lane_in_flight: int = Field(8, ge=1, description="Deliveries to one subscription at once.")
    stall_after: float = Field(30.0, ge=0, description="Seconds without a success until a full lane sheds events.")
    drain_timeout: float = Field(30.0, ge=0, description="Seconds that accepted events get at shutdown.")
    deletion_grace: float = Field(5.0, ge=0, description="Seconds between a channel's deletion and its unprovisioning.")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, env_settings

    @property
    def bus_name(self) -> str:
        """`[NAMESPACE/]NAME` from the flag, or from `BUS_NAMESPACE` and `BUS_NAME`; empty if neither says it."""
        if self.bus or not self.name:
            return self.bus
        return f"{self.namespace}/{self.name}" if self.namespace else self.name


def load_settings(flags: Mapping[str, Any]) -> Settings:
    """Settings from flags (only those given), environment and file.

    Raises:
        ConfigurationError: a value that cannot be used, or an unknown key in the file; each is named.
    """
    try:
        settings = Settings(**flags)
        if settings.config is None:
            return settings
        # A section is a driver's; what flags and environment say goes before the file.
        said = settings.model_fields_set
        content = _read(settings.config).items()
        plain = {name: value for name, value in content if name not in said and not isinstance(value, dict)}
        return Settings(**{**plain, **dict(flags)})
    except ValidationError as error:
        raise ConfigurationError(_sentences(error, "--", ENV_PREFIX)) from None


def load_driver_settings(cls: type[M] | None, driver: str, given: Mapping[str, str], settings: Settings) -> M | None:
    """A driver's settings from `--set DRIVER.FIELD=VALUE` (`given`, without the driver's name), the environment
    (`DRIVER_FIELD`), the section DRIVER of the settings file, and a secret's file.

    Raises:
        ConfigurationError: a setting that the driver does not have, or a value that it cannot use.
    """
    if cls is None:
        if given:
            raise ConfigurationError(
                f"the driver {driver!r} has no settings; leave out --set {driver}.{next(iter(given))}"
            )
        return None
    prefix = f"{driver.upper().replace('-', '_')}_"

    class Loaded(cls, BaseSettings):  # type: ignore[valid-type,misc]  # the base is chosen at run time
        model_config = SettingsConfigDict(
            env_prefix=prefix, secrets_dir=settings.secrets_dir, extra="forbid", frozen=True
        )

    section = _read(settings.config).get(driver, {}) if settings.config else {}
    values: dict[str, Any] = {}
    for key, value in given.items():
        name, _, rest = key.partition(".")
        if rest:
            values.setdefault(name, {})[rest] = value
        else:
            values[name] = value
    try:
        return cast(M, Loaded(**{**section, **values}))
    except ValidationError as error:
        raise ConfigurationError(_sentences(error, f"--set {driver}.", prefix)) from None


def _read(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except OSError as error:
        raise ConfigurationError(f"--config {path} cannot be read: {error.strerror}") from None
    except yaml.YAMLError as error:
        raise ConfigurationError(f"--config {path} is not YAML: {error}") from None
    if not isinstance(content, dict):
        raise ConfigurationError(f"--config {path} must hold KEY: VALUE lines")
    return content


def _sentences(error: ValidationError, flag: str, prefix: str) -> str:
    """One clause for each problem, without the value: it may be a secret."""
    clauses = []
    for problem in error.errors(include_url=False, include_input=False):
        name = ".".join(str(part) for part in problem["loc"])
        written = f"{flag}{name.replace('_', '-') if flag == '--' else name}"
        what = "there is no such setting" if problem["type"] == "extra_forbidden" else problem["msg"].lower()
        clauses.append(f"{written} ({prefix}{name.upper()}): {what}")
    return "; ".join(clauses)
