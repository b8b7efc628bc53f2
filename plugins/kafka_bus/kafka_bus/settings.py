"""Driver: the settings of the Kafka driver, and the librdkafka properties that follow from them."""

from __future__ import annotations

import string
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, SecretStr, field_validator, model_validator

from bus_core import DriverSettings

RESERVED = frozenset(
    {
        "acks",
        "auto.offset.reset",
        "bootstrap.servers",
        "enable.auto.commit",
        "enable.auto.offset.store",
        "enable.idempotence",
        "group.id",
        "partition.assignment.strategy",
    }
)
"""Properties that the driver's guarantees depend on. `kafka.config` must not set them."""

_FIELDS = ("namespace", "bus", "channel")


class KafkaSettings(DriverSettings):
    """Settings of the Kafka driver: `--set kafka.FIELD=VALUE`, or `KAFKA_FIELD` in the environment."""

    brokers: str = Field(description="HOST:PORT of some brokers, comma-separated; the others are found through them.")
    topic: str = Field(
        "knative-bus.{namespace}.{bus}.{channel}",
        description="Template of a channel's topic; {namespace} and {channel} are required, {bus} is not.",
    )
    keep_topics: bool = Field(False, description="Keep the topic of a channel that is deleted.")
    tls: bool = Field(False, description="Encrypt connections; implied by any of the files below.")
    ca_file: Path | None = Field(None, description="PEM file of the authority that signed the brokers' certificates.")
    cert_file: Path | None = Field(None, description="PEM file of the client's certificate, for mutual TLS.")
    key_file: Path | None = Field(None, description="PEM file of the client's key.")
    key_password: SecretStr | None = Field(None, description="Password of the client's key.")
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = Field(
        "SCRAM-SHA-512", description="How the username and password are presented."
    )
    username: str = Field("", description="SASL username; with it SASL is used.")
    password: SecretStr | None = Field(None, description="SASL password.")
    produce_timeout: float = Field(
        10.0, gt=0, le=300, description="Seconds until an event that no broker has acknowledged is answered 503."
    )
    queue_bytes: int = Field(
        32 << 20, ge=1 << 20, description="Bytes of events that may wait for an acknowledgement; beyond it is 503."
    )
    request_timeout: float = Field(10.0, gt=0, le=300, description="Seconds that an administrative request may take.")
    commit_interval: float = Field(0.5, gt=0, le=60, description="Seconds between commits of a subscription.")
    session_timeout: float = Field(
        6.0, gt=0, le=300, description="Seconds until the partitions of a host that died go to another."
    )
    config: dict[str, str] = Field(
        default_factory=dict, description="Further librdkafka properties, as kafka.config.NAME=VALUE."
    )

    @field_validator("topic")
    @classmethod
    def _check_topic(cls, template: str) -> str:
        try:
            parts = list(string.Formatter().parse(template))
        except ValueError as error:
            raise ValueError(f"is not a template: {error}") from None
        names = [name for _, name, _, _ in parts if name is not None]
        unknown = [name for name in names if name not in _FIELDS]
        if unknown:
            known = ", ".join(f"{{{name}}}" for name in _FIELDS)
            raise ValueError(f"contains {{{unknown[0]}}}; the known fields are {known}")
        missing = [name for name in ("namespace", "channel") if name not in names]
        if missing:
            raise ValueError(f"lacks {{{missing[0]}}}: several channels would share a topic")
        between = [literal for literal, name, _, _ in parts[1:] if name is not None]
        if not all("." in literal or "_" in literal for literal in between):
            # Names of namespaces, buses and channels contain dashes, but neither dots nor underscores.
            raise ValueError("needs a dot or an underscore between its fields: else two channels could share a topic")
        return template

    @model_validator(mode="after")
    def _check_together(self) -> KafkaSettings:
        if bool(self.cert_file) != bool(self.key_file):
            raise ValueError("cert_file and key_file go together: set both or neither")
        if self.username and self.password is None:
            raise ValueError("username needs a password")
        for name in ("ca_file", "cert_file", "key_file"):
            path = getattr(self, name)
            if path is not None and not path.is_file():
                raise ValueError(f"{name}: there is no file {path}")
        reserved = sorted(RESERVED & set(self.config))
        if reserved:
            raise ValueError(f"config: {', '.join(reserved)} cannot be set: the driver's guarantees depend on it")
        return self

    def client_config(self) -> dict[str, Any]:
        """The properties of every client. They contain secrets in plain text: pass them to librdkafka only."""
        tls = self.tls or self.ca_file is not None or self.cert_file is not None
        layers = ["SASL"] if self.username else []
        layers.append("SSL" if tls else "PLAINTEXT")
        config: dict[str, Any] = {
            "bootstrap.servers": self.brokers,
            "security.protocol": "_".join(layers),
            "client.id": "bus-core",
            "log.connection.close": False,
            "reconnect.backoff.max.ms": 5000,
        }
        if self.ca_file is not None:
            config["ssl.ca.location"] = str(self.ca_file)
        if self.cert_file is not None and self.key_file is not None:
            config["ssl.certificate.location"] = str(self.cert_file)
            config["ssl.key.location"] = str(self.key_file)
        if self.key_password is not None:
            config["ssl.key.password"] = self.key_password.get_secret_value()
        if self.username and self.password is not None:
            config["sasl.mechanism"] = self.sasl_mechanism
            config["sasl.username"] = self.username
            config["sasl.password"] = self.password.get_secret_value()
        return {**config, **self.config}
