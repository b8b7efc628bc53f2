"""Driver: the topic behind a channel. It is created, changed to what the parameters ask for, and deleted."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import (
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
    NewTopic,
    ResourceType,
)
from pydantic import TypeAdapter, ValidationError

from bus_core import Parameter, PermanentError, ResolvedParameters
from kafka_bus.admin import AdminRequests, error_code
from kafka_bus.failure import Trouble
from kafka_bus.names import collision

PARAMETERS = (
    Parameter("numPartitions", "partitions of the channel's topic; it can grow, never shrink", "1", "channel"),
    Parameter("replicationFactor", "copies of each partition; empty is the cluster's default", "", "channel"),
    Parameter("retention", "how long events are kept, as P7D or PT12H; empty is the cluster's default", "", "channel"),
    Parameter("topicConfig", "further topic settings, one NAME=VALUE a line or separated by semicolons", "", "channel"),
)

_duration = TypeAdapter(dt.timedelta)


@dataclass(frozen=True, slots=True)
class TopicSpec:
    """The topic that a channel's parameters ask for. A replication of None is the cluster's default."""

    partitions: int
    replication: int | None
    config: Mapping[str, str]


def topic_spec(parameters: ResolvedParameters) -> TopicSpec:
    """Read the parameters.

    Raises:
        PermanentError: a value that cannot be used.
    """
    config: dict[str, str] = {}
    for line in parameters["topicConfig"].replace(";", "\n").splitlines():
        if line.strip():
            name, found, value = line.partition("=")
            if not found:
                raise PermanentError(f"topicConfig: {line.strip()!r} is not NAME=VALUE")
            config[name.strip()] = value.strip()
    if parameters["retention"]:
        config["retention.ms"] = str(_milliseconds(parameters["retention"]))
    replication = parameters["replicationFactor"]
    return TopicSpec(
        parse_count("numPartitions", parameters["numPartitions"]),
        parse_count("replicationFactor", replication) if replication else None,
        config,
    )


class Topics:
    """Creates, changes and deletes topics. Blocking; thread-safe, as the admin client is.

    All methods raise TemporaryError if no broker answers in time or the host stops.
    """

    def __init__(self, admin: AdminRequests, trouble: Trouble) -> None:
        self._admin = admin
        self._trouble = trouble

    def ensure(self, name: str, spec: TopicSpec) -> str:
        """Create the topic, or change an existing one to what `spec` asks for.

        Returns:
            The change in a word or two, for the log.

        Raises:
            PermanentError: Kafka cannot make this change, or rejects it.
        """
        try:
            topics = self._admin.metadata().topics
            if name in topics:
                return self._alter(name, spec, topics[name])
            other = collision(name, set(topics))
            if other is not None:
                raise PermanentError(
                    f"the topic {name} would collide with the existing topic {other}: Kafka's metrics do not "
                    "distinguish dots from underscores; change kafka.topic or one of the names"
                )
            self._create(name, spec)
        except KafkaException as error:
            raise self._trouble.as_error(f"topic {name}", error) from None
        self._trouble.clear()
        return "created"

    def delete(self, name: str) -> None:
        """Delete the topic. A topic that does not exist counts as deleted."""
        timeout = self._admin.timeout
        try:
            self._admin.results(
                self._admin.client.delete_topics([name], operation_timeout=timeout, request_timeout=timeout)
            )
        except KafkaException as error:
            if error_code(error) != KafkaError.UNKNOWN_TOPIC_OR_PART:
                raise self._trouble.as_error(f"topic {name}", error) from None
        self._trouble.clear()

    def max_message_bytes(self, name: str) -> int:
        """The topic's limit for a record batch in bytes, which is also the limit for one event."""
        try:
            return int(self._describe(name)["max.message.bytes"])
        except KafkaException as error:
            raise self._trouble.as_error(f"topic {name}", error) from None

    def partitions(self, name: str) -> list[int]:
        """The numbers of the topic's partitions."""
        try:
            topic = self._admin.metadata(name).topics[name]
            if topic.error is not None:
                raise KafkaException(topic.error)
        except KafkaException as error:
            raise self._trouble.as_error(f"topic {name}", error) from None
        return sorted(topic.partitions)

    def _create(self, name: str, spec: TopicSpec) -> None:
        # -1: the cluster's default (KIP-464).
        topic = NewTopic(name, spec.partitions, spec.replication or -1, config=dict(spec.config))
        timeout = self._admin.timeout
        try:
            self._admin.results(
                self._admin.client.create_topics([topic], operation_timeout=timeout, request_timeout=timeout)
            )
        except KafkaException as error:
            if error_code(error) != KafkaError.TOPIC_ALREADY_EXISTS:  # Another process created it first.
                raise

    def _alter(self, name: str, spec: TopicSpec, found: Any) -> str:
        count = len(found.partitions)
        if spec.partitions < count:
            raise PermanentError(
                f"the topic {name} has {count} partitions and numPartitions asks for {spec.partitions}: Kafka cannot "
                f"remove partitions; set numPartitions to {count} or more, or create another channel"
            )
        copies = {len(partition.replicas) for partition in found.partitions.values()}
        if spec.replication is not None and copies != {spec.replication}:
            raise PermanentError(
                f"the topic {name} has {'/'.join(map(str, sorted(copies)))} copies of a partition and "
                f"replicationFactor asks for {spec.replication}: reassign with Kafka's tools, or leave it out"
            )
        done = []
        if spec.config:
            present = self._describe(name)
            changed = {key: value for key, value in spec.config.items() if present.get(key) != value}
            if changed:
                self._set(name, changed)
                done.append("configuration")
        if spec.partitions > count:
            timeout = self._admin.timeout
            self._admin.results(
                self._admin.client.create_partitions(
                    [NewPartitions(name, spec.partitions)], operation_timeout=timeout, request_timeout=timeout
                )
            )
            done.append("partitions")
        return f"changed {' and '.join(done)}" if done else "as it was"

    def _set(self, name: str, config: Mapping[str, str]) -> None:
        entries = [
            ConfigEntry(key, value, incremental_operation=AlterConfigOpType.SET) for key, value in config.items()
        ]
        resource = ConfigResource(ResourceType.TOPIC, name, incremental_configs=entries)
        self._admin.results(
            self._admin.client.incremental_alter_configs([resource], request_timeout=self._admin.timeout)
        )

    def _describe(self, name: str) -> dict[str, str]:
        resource = ConfigResource(ResourceType.TOPIC, name)
        (found,) = self._admin.results(
            self._admin.client.describe_configs([resource], request_timeout=self._admin.timeout)
        )
        return {key: entry.value for key, entry in found.items()}


def parse_count(name: str, text: str) -> int:
    """Read a parameter that is a number.

    Raises:
        PermanentError: it is not an integer from 1 to 1000000.
    """
    if not text.isascii() or not text.isdigit() or not 0 < int(text) <= 1_000_000:
        raise PermanentError(f"{name}: {text!r} must be an integer from 1 to 1000000")
    return int(text)


def _milliseconds(text: str) -> int:
    try:
        return int(_duration.validate_python(text).total_seconds() * 1000)
    except ValidationError:
        raise PermanentError(f"retention: {text!r} must be an ISO 8601 duration such as P7D or PT12H") from None
