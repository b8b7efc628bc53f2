"""Every setting of the host, once: flag, environment variable, place in a file, default and help."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar, cast

import yaml
from pydantic import BaseModel, Field, PrivateAttr, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, SettingsError

from bus_core.model.errors import ConfigurationError

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

    _origins: Mapping[str, str] = PrivateAttr(default_factory=dict)

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

    def origin(self, name: str) -> str:
        """What says a setting, as an error names it: the flag, the environment variable, or the line of the file."""
        return self._origins.get(name, _flag(name))


def load_settings(flags: Mapping[str, Any]) -> Settings:
    """Settings from flags (only those given), environment and file.

    Raises:
        ConfigurationError: a value that cannot be used, or an unknown key in the file; each is named.
    """
    origins = _variables(ENV_PREFIX, Settings) | {name: _flag(name) for name in flags}
    try:
        settings = Settings(**flags)
        if settings.config is not None:
            file = _read(settings.config, origins["config"])
            # A section is a driver's; what flags and environment say goes before the file.
            said = settings.model_fields_set
            plain = {name: value for name, value in file.data.items() if name not in said and name not in file.sections}
            origins = {name: file.place(name) for name in plain} | origins
            settings = Settings(**{**plain, **dict(flags)})
    except ValidationError as error:
        hint = "; the section of a driver holds FIELD: VALUE lines"
        raise ConfigurationError(_sentences(error, origins, Settings, _flag, hint=hint)) from None
    settings._origins = origins
    return settings


def load_driver_settings(cls: type[M] | None, driver: str, given: Mapping[str, str], settings: Settings) -> M | None:
    """A driver's settings from `--set DRIVER.FIELD=VALUE` (`given`, without the driver's name), the environment
    (`DRIVER_FIELD`), the section DRIVER of the settings file, and a secret's file.

    Raises:
        ConfigurationError: a setting that the driver does not have, or a value that it cannot use.
    """
    prefix = f"{driver.upper().replace('-', '_')}_"
    secrets = _secrets(settings, prefix, cls)
    file = _read(settings.config, settings.origin("config")) if settings.config else _File()
    section = file.sections.get(driver, {})
    values: dict[str, Any] = {}
    for key, value in given.items():
        name, _, rest = key.partition(".")
        if rest:
            values.setdefault(name, {})[rest] = value
        else:
            values[name] = value
    written = {name: file.place(driver, name) for name in section} | {name: f"--set {driver}.{name}" for name in values}
    if cls is None:
        if secrets or written:
            place = next(iter({**secrets, **written}.values()))
            raise ConfigurationError(f"the driver {driver!r} has no settings; leave out {place}")
        return None
    origins = secrets | _variables(prefix, cls) | written

    class Loaded(cls, BaseSettings):  # type: ignore[valid-type,misc]  # the base is chosen at run time
        model_config = SettingsConfigDict(
            env_prefix=prefix, secrets_dir=settings.secrets_dir, extra="forbid", frozen=True
        )

    try:
        return cast(M, Loaded(**{**section, **values}))
    except ValidationError as error:
        whole = f"the settings of the driver {driver!r}"
        raise ConfigurationError(
            _sentences(error, origins, cls, lambda name: f"--set {driver}.{name} ({prefix}{name.upper()})", whole)
        ) from None
    except SettingsError as error:
        found = re.search(r'field "(\w+)"', str(error))
        place = origins.get(found[1], found[1]) if found else f"a setting of the driver {driver!r}"
        raise ConfigurationError(f'{place}: must be JSON, such as {{"NAME": "VALUE"}}') from None


def driver_sections(settings: Settings) -> dict[str, str]:
    """The sections of the settings file: for each name the place in the file."""
    if settings.config is None:
        return {}
    file = _read(settings.config, settings.origin("config"))
    return {name: file.place(name) for name in file.sections}


def mistyped_variables() -> list[str]:
    """One sentence for each environment variable that resembles one of ours. Others that begin with `BUS_` are left
    alone: a cluster makes BUS_PORT and BUS_SERVICE_HOST for a Service that is called bus."""
    names = [variable.upper() for variable in os.environ if variable.upper().startswith(ENV_PREFIX)]
    sentences = []
    for name in sorted(name.removeprefix(ENV_PREFIX) for name in names):
        known = [field.upper() for field in Settings.model_fields]
        near = difflib.get_close_matches(name, known, 1, cutoff=0.75)
        if near and name not in known:
            sentences.append(f"{ENV_PREFIX}{name} is no setting and is ignored; did you mean {ENV_PREFIX}{near[0]}?")
    return sentences


@dataclass(frozen=True, slots=True)
class _File:
    """What a settings file says, and on which line."""

    path: Path = Path()
    data: Mapping[str, Any] = field(default_factory=dict)
    lines: Mapping[tuple[str, ...], int] = field(default_factory=dict)

    @property
    def sections(self) -> dict[str, dict[str, Any]]:
        return {
            name: {str(key): inner for key, inner in (value or {}).items()}
            for name, value in self.data.items()
            if name not in Settings.model_fields and isinstance(value, dict | None)
        }

    def place(self, *keys: str) -> str:
        line = self.lines.get(keys)
        return f"{self.path}:{line}: {'.'.join(keys)}" if line else f"{self.path}: {'.'.join(keys)}"


def _read(path: Path, said_by: str) -> _File:
    try:
        loader = yaml.SafeLoader(path.read_text(encoding="utf-8"))
        node = loader.get_single_node()
        lines = _lines(path, node)
        data = {} if node is None else loader.construct_document(node)
    except OSError as error:
        raise ConfigurationError(f"{said_by} {path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{said_by} {path} is not UTF-8 text: {error.reason}") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        what = " ".join(filter(None, (error.context, error.problem)))
        raise ConfigurationError(f"{path}:{mark.line + 1 if mark else 0}: is not YAML: {what}") from None
    except yaml.YAMLError as error:
        raise ConfigurationError(f"{said_by} {path} is not YAML: {error}") from None
    if data is None:
        data = {}
    if not isinstance(data, dict):
        raise ConfigurationError(f"{said_by} {path} must hold KEY: VALUE lines")
    return _File(path, {str(key): value for key, value in data.items()}, lines)


def _lines(path: Path, node: yaml.Node | None, at: tuple[str, ...] = ()) -> dict[tuple[str, ...], int]:
    """The line of each key; a key that is given twice is refused, as in a manifest."""
    found: dict[tuple[str, ...], int] = {}
    if not isinstance(node, yaml.MappingNode) or len(at) > 3:  # deeper there are no settings, but perhaps a circle
        return found
    for key, value in node.value:
        here, line = (*at, str(key.value)), key.start_mark.line + 1
        if here in found:
            raise ConfigurationError(f"{path}:{line}: {'.'.join(here)} is given twice (first on line {found[here]})")
        found[here] = line
        found |= _lines(path, value, here)
    return found


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _variables(prefix: str, cls: type[BaseModel]) -> dict[str, str]:
    """The settings that the environment says; case does not matter in it."""
    said = {variable.upper() for variable in os.environ}
    names = {name: f"{prefix}{name.upper()}" for name in cls.model_fields}
    return {name: variable for name, variable in names.items() if variable in said}


def _did_you_mean(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, known, 1)
    return f"; did you mean {near[0]!r}?" if near else ""


def _secrets(settings: Settings, prefix: str, cls: type[BaseModel] | None) -> dict[str, str]:
    """The files of the secrets' folder that hold settings of the driver, each looked at: the library reads them later,
    passes over what it does not know, and warns or raises of its own about the rest."""
    folder, known = settings.secrets_dir, cls.model_fields if cls else ()
    if folder is None:
        return {}
    said_by = settings.origin("secrets_dir")
    if not folder.is_dir():
        raise ConfigurationError(f"{said_by} {folder}: there is no such folder; make it, or leave it out")
    found = {}
    try:
        for path in sorted(folder.iterdir()):
            name = path.name.lower()
            if not name.startswith(prefix.lower()):
                continue
            name = name.removeprefix(prefix.lower())
            if cls and name not in known:
                hint = _did_you_mean(path.name.upper(), [f"{prefix}{field.upper()}" for field in known])
                raise ConfigurationError(f"{path}: there is no such setting{hint}")
            path.read_text(encoding="utf-8")
            found[name] = str(path)
    except OSError as error:
        raise ConfigurationError(f"{error.filename or folder} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigurationError(f"{path} is not UTF-8 text") from None
    return found


def _sentences(
    error: ValidationError,
    origins: Mapping[str, str],
    cls: type[BaseModel],
    unsaid: Callable[[str], str],
    whole: str = "the settings",
    hint: str = "",
) -> str:
    """One clause for each problem, without the value: it may be a secret. `unsaid` names a setting that nobody gave,
    `whole` all of them together; `hint` is for a setting that does not exist and resembles none."""
    clauses = []
    for problem in error.errors(include_url=False, include_input=False):
        name, *inner = [str(part) for part in problem["loc"]] or [""]
        place = ".".join([origins.get(name) or unsaid(name), *inner]) if name else whole
        what = problem["msg"].removeprefix("Value error, ")
        what = what[:1].lower() + what[1:]
        if problem["type"] == "extra_forbidden" and not inner:
            what = f"there is no such setting{_did_you_mean(name, cls.model_fields) or hint}"
        clauses.append(f"{place}: {what}")
    return "; ".join(clauses)
