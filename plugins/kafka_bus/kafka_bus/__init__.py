"""Driver: the Kafka bus, with durable channels. A channel is a topic, and a subscription is a consumer group."""

from kafka_bus.driver import KafkaBus

__all__ = ["KafkaBus"]
