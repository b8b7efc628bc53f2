"""The Kafka bus: durable channels. A channel is a topic, a subscription is a consumer group."""

from kafka_bus.driver import KafkaBus

__all__ = ["KafkaBus"]
