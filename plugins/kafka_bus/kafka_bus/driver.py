"""Driver: the Kafka driver. It implements the hooks of the driver contract."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from typing import TypeVar

from confluent_kafka import KafkaException

from bus_core import (
    Bus,
    Channel,
    ChannelReference,
    ClusterBus,
    ConfigurationError,
    DriverContext,
    Gauge,
    Message,
    MessageTooLargeError,
    Parameter,
    PermanentError,
    ResolvedParameters,
    Subscription,
    TemporaryError,
    hookimpl,
)
from kafka_bus import topic
from kafka_bus.admin import AdminRequests
from kafka_bus.blocked_mark import MarkAsker
from kafka_bus.blocked_reporter import BlockedReporter
from kafka_bus.clients import Clients
from kafka_bus.codec import to_record
from kafka_bus.consumer_loop import ConsumerLoop
from kafka_bus.failure import Trouble
from kafka_bus.group import Groups
from kafka_bus.limits import TopicLimits
from kafka_bus.loops import ConsumerLoops
from kafka_bus.names import ConsumerIdentity, TopicNames, group_name
from kafka_bus.ordered_submitter import OrderedSubmitter, Ordering, SubmitPolicy
from kafka_bus.producers import Producers
from kafka_bus.settings import KafkaSettings

T = TypeVar("T", bound=str)

BLOCKED = Gauge("bus_kafka_blocked_partitions", "Partitions held up by an undeliverable event", ["subscription"])

ORDERINGS: tuple[Ordering, ...] = ("key", "partition", "unordered")

JOIN_TIMEOUT = 30.0
"""Seconds until a consumer must have joined its group."""

CLOSE_TIMEOUT = 5.0
"""Seconds that a shutdown waits for consumers to leave their groups, and for acknowledgements. Both take a round trip.
If a broker hangs, its groups notice after `session_timeout`, and what was not committed is delivered again."""

LEAVE_TRIES = 4
LEAVE_PAUSE = 0.25
"""Seconds between two tries to delete a group that other workers leave at the same time."""


class KafkaBus:
    """A channel is a topic, and a subscription is a consumer group. 202 means that the brokers have acknowledged."""

    api = 1
    settings = KafkaSettings
    parameters = (
        *topic.PARAMETERS,
        Parameter("initialOffset", "Newest or Oldest: where a new subscription begins", "Newest", "subscription"),
        Parameter("ordering", "key, partition or unordered: which events stay in order", "key", "subscription"),
        Parameter("maxInFlight", "events that a worker hands to the lane at once", "500", "subscription"),
        Parameter("maxUncommitted", "events read past one that cannot be delivered", "10000", "subscription"),
    )

    def __init__(self, context: DriverContext) -> None:
        settings: KafkaSettings = context.settings
        self._context = context
        self._log = context.logger
        # librdkafka logs through Python's logging. By default that is silent: errors come by callback, too.
        client_logger = logging.getLogger("kafka_bus.librdkafka")
        client_logger.setLevel(logging.CRITICAL)
        self._clients = Clients(settings, Trouble(settings.brokers), context.logger, client_logger)
        try:
            admin = self._clients.admin()
        except KafkaException as error:
            raise ConfigurationError(f"kafka.config: librdkafka rejects it: {error.args[0].str()}") from None
        self._admin = AdminRequests(admin, settings.request_timeout, context.stopping)
        self._names = TopicNames(settings.topic, context.bus)
        self._topics = topic.Topics(self._admin, self._clients.trouble)
        self._groups = Groups(self._admin, self._clients.trouble)
        self._limits = TopicLimits(self._topics)
        self._producers = Producers(self._clients, self._limits)
        self._mark_asker = MarkAsker(self._clients, context.stopping)
        self._loops = ConsumerLoops(context.stopping)
        # By group that `unsubscribe` could not delete yet: when it tried first. Hooks of a channel never overlap.
        self._leaving: dict[str, float] = {}
        context.exit_stack.callback(self._close)
        threading.Thread(target=self._pause_on_stop, name="kafka-stopping", daemon=True).start()

    @hookimpl
    def sync_bus(self, bus: Bus | ClusterBus) -> None:
        """Check that the brokers can be reached. If they cannot, the Bus is not ready, and its condition says why."""
        self._admin.client.poll(0)
        try:
            self._admin.metadata()
        except KafkaException as error:
            self._admin.client.poll(0)  # The reason comes by callback.
            raise self._clients.trouble.as_error("the bus is not connected", error) from None
        self._clients.trouble.clear()

    @hookimpl
    def provision(self, channel: Channel, parameters: ResolvedParameters) -> None:
        name = self._names.get(channel.reference)
        done = self._topics.ensure(name, topic.topic_spec(parameters))
        self._limits.learn(name)
        self._log.info("provisioned", channel=str(channel.reference), topic=name, done=done)

    @hookimpl
    def unprovision(self, channel: Channel) -> None:
        name = self._names.get(channel.reference)
        self._forget(channel.reference, name)
        if self._clients.settings.keep_topics:
            done = "kept, as keep_topics says"
        else:
            self._topics.delete(name)
            done = "deleted"
        self._log.info("unprovisioned", channel=str(channel.reference), topic=name, done=done)

    @hookimpl
    def subscribe(self, channel: Channel, subscription: Subscription, parameters: ResolvedParameters) -> None:
        name = self._names.get(channel.reference)
        group = group_name(name, subscription.reference)
        newest = _choice("initialOffset", parameters["initialOffset"], ("Newest", "Oldest")) == "Newest"
        policy = SubmitPolicy(
            _choice("ordering", parameters["ordering"], ORDERINGS),
            topic.parse_count("maxInFlight", parameters["maxInFlight"]),
            topic.parse_count("maxUncommitted", parameters["maxUncommitted"]),
        )
        terms = (subscription.uid, *sorted(parameters.items()))
        identity = ConsumerIdentity(name, group, subscription.reference, terms)
        known = self._loops.get(subscription.reference)
        self._limits.learn(name)
        self._producers.connect(name)
        if known is not None and known.identity == identity:
            return  # The change concerns the host (the subscriber's address) or the topic's configuration.
        self._loops.remove(subscription.reference)
        self._leaving.pop(group, None)
        fixed = self._groups.fix_position(group, name, self._topics.partitions(name), newest=newest)
        loop = self._consumer_loop(identity, policy)
        loop.start()
        if fixed and not loop.wait_joined(JOIN_TIMEOUT, self._context.stopping):
            self._loops.wait_closed(loop)
            raise TemporaryError(f"the consumer group {group} did not form within {JOIN_TIMEOUT:g} s")
        self._loops.add(loop)
        self._log.info(
            "subscribed", channel=str(channel.reference), subscription=str(subscription.reference), group=group
        )

    @hookimpl
    def unsubscribe(self, channel: Channel, subscription: Subscription) -> None:
        name = self._names.get(channel.reference)
        group = group_name(name, subscription.reference)
        self._loops.remove(subscription.reference)
        if not self._loops.read_topic(name):
            self._forget(channel.reference, name)  # No other hook tells this worker that the channel is deleted.
        is_deleted = self._delete_group(group)
        since = self._leaving.setdefault(group, time.monotonic())
        if not is_deleted and time.monotonic() - since < 2 * self._clients.settings.session_timeout:
            # Its members are workers that are about to leave, or that died. The last one that leaves deletes the group.
            raise TemporaryError(f"the consumer group {group} still has members", retry_after=1.0)
        del self._leaving[group]
        self._log.info(
            "unsubscribed",
            channel=str(channel.reference),
            subscription=str(subscription.reference),
            group=group,
            done="deleted" if is_deleted else "left to the members it still has",
        )

    @hookimpl
    async def receive(self, channel: ChannelReference, message: Message) -> None:
        name, record = self._names.get(channel), to_record(message)
        try:
            await self._producers.send(name, record)
        except MessageTooLargeError:
            # The limit may have changed since this worker learnt it, or this worker has not learnt it.
            if not await asyncio.to_thread(self._limits.refresh, name):
                raise
            await self._producers.send(name, record)

    def _forget(self, channel: ChannelReference, topic_name: str) -> None:
        self._producers.forget(topic_name)
        self._names.forget(channel)

    def _consumer_loop(self, identity: ConsumerIdentity, policy: SubmitPolicy) -> ConsumerLoop:
        context = self._context
        return ConsumerLoop(
            self._clients,
            identity,
            OrderedSubmitter(context.submit, identity.subscription, policy),
            context.forwarded,
            self._mark_asker,
            BlockedReporter(identity.subscription, identity.topic, context.report, BLOCKED),
        )

    def _delete_group(self, group: str) -> bool:
        """Delete the group once other workers have left it. False if it still has members after a second."""
        for _ in range(LEAVE_TRIES):
            if self._groups.delete(group):
                return True
            if self._context.stopping.wait(LEAVE_PAUSE):
                return False
        return self._groups.delete(group)

    def _pause_on_stop(self) -> None:
        """Once the host stops, no loop submits more. Loops stay in their groups until deliveries have completed."""
        self._context.stopping.wait()
        self._loops.pause()

    def _close(self) -> None:
        deadline = time.monotonic() + CLOSE_TIMEOUT
        for loop in self._loops.close(deadline):
            self._log.warning("a consumer could not leave its group in time", group=loop.identity.group)
        self._producers.close(deadline)


def _choice(name: str, value: str, allowed: tuple[T, ...]) -> T:
    for choice in allowed:
        if choice == value:
            return choice
    raise PermanentError(f"{name}: {value!r} must be one of {', '.join(allowed)}")
