"""The topic behind a channel: made, brought to what is wanted, removed."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
    NewTopic,
    ResourceType,
)
from pydantic import TypeAdapter, ValidationError

from bus_core import Parameter, PermanentError, ResolvedParameters
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
class Wanted:
    """What the parameters of a channel ask of its topic."""

    partitions: int
    replication: int | None
    config: Mapping[str, str]


def wanted(parameters: ResolvedParameters) -> Wanted:
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
    return Wanted(
        whole("numPartitions", parameters["numPartitions"]),
        whole("replicationFactor", replication) if replication else None,
        config,
    )


class Topics:
    """Makes and removes topics. Blocking; safe from several threads, as the admin client is."""

    def __init__(self, admin: AdminClient, trouble: Trouble, timeout: float) -> None:
        self._admin = admin
        self._trouble = trouble
        self._timeout = timeout

    def ensure(self, name: str, want: Wanted) -> str:
        """Make the topic, or bring an existing one to what is wanted; what was done, in a word or two.

        Raises:
            PermanentError: what Kafka cannot change, or refuses. TemporaryError: no broker, or no answer in time.
        """
        try:
            topics = self._admin.list_topics(timeout=self._timeout).topics
            if name in topics:
                return self._alter(name, want, topics[name])
            other = collision(name, set(topics))
            if other is not None:
                raise PermanentError(
                    f"the topic {name} would collide with the existing topic {other}: Kafka takes dots and "
                    "underscores for the same in its metrics; change kafka.topic or one of the names"
                )
            self._create(name, want)
        except KafkaException as error:
            raise self._trouble.as_error(f"topic {name}", error) from None
        self._trouble.clear()
        return "created"

    def delete(self, name: str) -> None:
        """Remove the topic; one that is not there counts as removed."""
        try:
            self._wait(
                self._admin.delete_topics([name], operation_timeout=self._timeout, request_timeout=self._timeout)
            )
        except KafkaException as error:
            if error.args[0].code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
                raise self._trouble.as_error(f"topic {name}", error) from None
        self._trouble.clear()

    def max_message_bytes(self, name: str) -> int:
        """The topic's limit for one record batch, which is that for one event."""
        try:
            return int(self._describe(name)["max.message.bytes"])
        except KafkaException as error:
            raise self._trouble.as_error(f"topic {name}", error) from None

    def partitions(self, name: str) -> list[int]:
        """The numbers of the topic's partitions."""
        try:
            topic = self._admin.list_topics(name, timeout=self._timeout).topics[name]
            if topic.error is not None:
                raise KafkaException(topic.error)
        except KafkaException as error:
            raise self._trouble.as_error(f"topic {name}", error) from None
        return sorted(topic.partitions)

    def _create(self, name: str, want: Wanted) -> None:
        # -1: the cluster's default (KIP-464).
        topic = NewTopic(name, want.partitions, want.replication or -1, config=dict(want.config))
        try:
            self._wait(
                self._admin.create_topics([topic], operation_timeout=self._timeout, request_timeout=self._timeout)
            )
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:  # another process was faster
                raise

    def _alter(self, name: str, want: Wanted, found: Any) -> str:
        count = len(found.partitions)
        if want.partitions < count:
            raise PermanentError(
                f"the topic {name} has {count} partitions and numPartitions asks for {want.partitions}: Kafka takes "
                f"none away; set numPartitions to {count} or more, or make another channel"
            )
        copies = {len(partition.replicas) for partition in found.partitions.values()}
        if want.replication is not None and copies != {want.replication}:
            raise PermanentError(
                f"the topic {name} has {'/'.join(map(str, sorted(copies)))} copies of a partition and "
                f"replicationFactor asks for {want.replication}: reassign with Kafka's tools, or leave it out"
            )
        done = []
        if want.config:
            present = self._describe(name)
            changed = {key: value for key, value in want.config.items() if present.get(key) != value}
            if changed:
                self._set(name, changed)
                done.append("configuration")
        if want.partitions > count:
            futures = self._admin.create_partitions(
                [NewPartitions(name, want.partitions)],
                operation_timeout=self._timeout,
                request_timeout=self._timeout,
            )
            self._wait(futures)
            done.append("partitions")
        return f"changed {' and '.join(done)}" if done else "as it was"

    def _set(self, name: str, config: Mapping[str, str]) -> None:
        entries = [
            ConfigEntry(key, value, incremental_operation=AlterConfigOpType.SET) for key, value in config.items()
        ]
        resource = ConfigResource(ResourceType.TOPIC, name, incremental_configs=entries)
        self._wait(self._admin.incremental_alter_configs([resource], request_timeout=self._timeout))

    def _describe(self, name: str) -> dict[str, str]:
        futures = self._admin.describe_configs(
            [ConfigResource(ResourceType.TOPIC, name)], request_timeout=self._timeout
        )
        (found,) = self._wait(futures)
        return {key: entry.value for key, entry in found.items()}

    def _wait(self, futures: Mapping[Any, Future[Any]]) -> Iterable[Any]:
        return [future.result(self._timeout + 5) for future in futures.values()]


def whole(name: str, text: str) -> int:
    """A parameter that is a number.

    Raises:
        PermanentError: it is none, or out of range.
    """
    if not text.isascii() or not text.isdigit() or not 0 < int(text) <= 1_000_000:
        raise PermanentError(f"{name}: {text!r} is no whole number from 1 on")
    return int(text)


def _milliseconds(text: str) -> int:
    try:
        return int(_duration.validate_python(text).total_seconds() * 1000)
    except ValidationError:
        raise PermanentError(f"retention: {text!r} is no ISO 8601 duration such as P7D or PT12H") from None
