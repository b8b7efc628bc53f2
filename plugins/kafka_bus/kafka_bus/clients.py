"""Driver: how each Kafka client of a worker is made, with the same settings, error callback and log."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import AdminClient

from kafka_bus.failure import Trouble
from kafka_bus.settings import KafkaSettings


@dataclass(frozen=True)
class Clients:
    """Makes clients. Thread-safe.

    Attributes:
        trouble: hears the errors of all clients, on threads that poll them.
        logger: the driver's structured log, for people.
        client_logger: where librdkafka logs.
    """

    settings: KafkaSettings
    trouble: Trouble
    logger: Any
    client_logger: logging.Logger

    def admin(self) -> AdminClient:
        """Raises: KafkaException: librdkafka rejects a property of `kafka.config`."""
        return AdminClient(self._config({}))

    def producer(self, properties: Mapping[str, Any]) -> Producer:
        """A producer with these properties; `kafka.config` overrides them."""
        return Producer(self._config(properties))

    def consumer(self, properties: Mapping[str, Any]) -> Consumer:
        """A consumer with these properties; `kafka.config` overrides them."""
        return Consumer(self._config(properties))

    def _config(self, properties: Mapping[str, Any]) -> dict[str, Any]:
        return {
            **self.settings.client_config(),
            **properties,
            "error_cb": self.trouble.note,
            "logger": self.client_logger,
            **self.settings.config,
        }
