"""The Kafka driver: its hooks, and the clients they share."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from typing import TypeVar

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from bus_core import (
    Bus,
    Channel,
    ChannelReference,
    ClusterBus,
    ConfigurationError,
    DriverContext,
    Message,
    MessageTooLargeError,
    Parameter,
    PermanentError,
    ResolvedParameters,
    Subscription,
    SubscriptionReference,
    TemporaryError,
    hookimpl,
)
from kafka_bus import topic
from kafka_bus.codec import to_record
from kafka_bus.failure import Trouble
from kafka_bus.feed import Feed
from kafka_bus.flow import Flow, Ordering
from kafka_bus.group import Groups
from kafka_bus.names import group_name, topic_name
from kafka_bus.producer import Producers
from kafka_bus.settings import KafkaSettings

T = TypeVar("T", bound=str)

ORDERINGS: tuple[Ordering, ...] = ("key", "partition", "unordered")

JOIN_TIMEOUT = 30.0

RELEARN_EVERY = 5.0
"""Seconds between two looks at a topic's limit that events too large for it may cause."""


class KafkaBus:
    """A channel is a topic, a subscription is a consumer group, 202 means that the brokers have acknowledged."""

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
        self._settings = settings
        self._log = context.logger
        self._trouble = Trouble(settings.brokers)
        # What librdkafka has to say goes the way of all logs, at its own levels.
        self._client_log = logging.getLogger("kafka_bus.librdkafka")
        self._client_log.setLevel(logging.CRITICAL)
        client = {**settings.client_config(), "error_cb": self._trouble.note, "logger": self._client_log}
        try:
            self._admin = AdminClient(client)
        except KafkaException as error:
            raise ConfigurationError(f"kafka.config: librdkafka refuses it: {error.args[0].str()}") from None
        self._topics = topic.Topics(self._admin, self._trouble, settings.request_timeout)
        self._groups = Groups(self._admin, self._trouble, settings.request_timeout)
        self._producers = Producers(settings, self._trouble, self._client_log)
        self._names: dict[ChannelReference, str] = {}
        self._asked: dict[str, float] = {}  # by topic: when its limit was asked for because of an event
        self._feeds: dict[SubscriptionReference, Feed] = {}
        self._leaving: dict[str, float] = {}  # by group: since when it is to be deleted
        self._lock = threading.Lock()
        context.exit_stack.callback(self._close)
        threading.Thread(target=self._watch, name="kafka-stopping", daemon=True).start()

    @hookimpl
    def sync_bus(self, bus: Bus | ClusterBus) -> None:
        """Find out whether the brokers can be reached at all: a bus that cannot is not ready, and says why."""
        try:
            self._admin.poll(0)
            self._admin.list_topics(timeout=self._settings.request_timeout)
        except KafkaException as error:
            self._admin.poll(0)  # the reason comes by callback
            raise self._trouble.as_error("the bus is not connected", error) from None
        self._trouble.clear()

    @hookimpl
    def provision(self, channel: Channel, parameters: ResolvedParameters) -> None:
        name = self._topic(channel.reference)
        want = topic.wanted(parameters)
        done = self._topics.ensure(name, want)
        self._producers.learn(name, self._topics.max_message_bytes(name))
        self._log.info("provisioned", channel=str(channel.reference), topic=name, done=done)

    @hookimpl
    def unprovision(self, channel: Channel) -> None:
        name = self._topic(channel.reference)
        self._producers.forget(name)
        if self._settings.keep_topics:
            self._log.info(
                "unprovisioned", channel=str(channel.reference), topic=name, done="kept, as keep_topics says"
            )
            return
        self._topics.delete(name)
        self._log.info("unprovisioned", channel=str(channel.reference), topic=name, done="deleted")

    @hookimpl
    def subscribe(self, channel: Channel, subscription: Subscription, parameters: ResolvedParameters) -> None:
        name = self._topic(channel.reference)
        group = group_name(name, subscription.reference)
        newest = _choice("initialOffset", parameters["initialOffset"], ("Newest", "Oldest")) == "Newest"
        flow = self._flow(subscription.reference, parameters)
        terms = (group, subscription.uid, *sorted(parameters.items()))
        with self._lock:
            known = self._feeds.get(subscription.reference)
        self._producers.learn(name, self._topics.max_message_bytes(name))
        self._producers.connect(name)
        if known is not None and known.terms == terms:
            return  # what changed is the host's: where it leads, or the topic's configuration
        self._end_feed(subscription.reference)
        self._leaving.pop(group, None)
        fixed = self._groups.fix_position(group, name, self._topics.partitions(name), newest=newest)
        feed = Feed(
            self._settings,
            self._trouble,
            self._log,
            self._client_log,
            topic=name,
            group=group,
            subscription=str(subscription.reference),
            flow=flow,
            terms=terms,
            forwarded=self._context.forwarded,
            report=lambda text: self._report(subscription.reference, text),
        )
        feed.start()
        if fixed and not feed.wait_joined(JOIN_TIMEOUT, self._context.stopping):
            feed.close()
            raise TemporaryError(f"the consumer group {group} took longer than {JOIN_TIMEOUT:g} s to form")
        with self._lock:
            self._feeds[subscription.reference] = feed
        if self._context.stopping.is_set():
            feed.pause()
        self._log.info(
            "subscribed", channel=str(channel.reference), subscription=str(subscription.reference), group=group
        )

    @hookimpl
    def unsubscribe(self, channel: Channel, subscription: Subscription) -> None:
        self._end_feed(subscription.reference)
        group, tries = group_name(self._topic(channel.reference), subscription.reference), 4
        last = self._groups.delete(group)
        while not last and tries and not self._context.stopping.wait(0.25):  # other workers leave at the same time
            last, tries = self._groups.delete(group), tries - 1
        since = self._leaving.setdefault(group, time.monotonic())
        if not last and time.monotonic() - since < 2 * self._settings.session_timeout:
            # Another worker that is about to leave, or one that died and is still counted: the last one deletes it.
            raise TemporaryError(f"the consumer group {group} still has members", retry_after=1.0)
        del self._leaving[group]
        self._log.info(
            "unsubscribed",
            channel=str(channel.reference),
            subscription=str(subscription.reference),
            group=group,
            done="deleted" if last else "left to the members it still has",
        )

    @hookimpl
    async def receive(self, channel: ChannelReference, message: Message) -> None:
        name, record = self._names.get(channel) or self._topic(channel), to_record(message)
        try:
            await self._producers.send(name, record)
        except MessageTooLargeError:
            # The limit may have changed since this worker learnt it, or it has not learnt it yet.
            if not await asyncio.to_thread(self._relearn, name):
                raise
            await self._producers.send(name, record)

    def _topic(self, channel: ChannelReference) -> str:
        name = self._names.get(channel)
        if name is None:
            name = self._names[channel] = topic_name(self._settings.topic, self._context.bus, channel)
        return name

    def _relearn(self, topic_name: str) -> bool:
        """Ask for a topic's limit again, if that was not done just now; whether it is another one."""
        now = time.monotonic()
        if now - self._asked.get(topic_name, float("-inf")) < RELEARN_EVERY:
            return False
        self._asked[topic_name] = now
        before, limit = self._producers.limit(topic_name), self._topics.max_message_bytes(topic_name)
        self._producers.learn(topic_name, limit)
        return limit != before

    def _flow(self, subscription: SubscriptionReference, parameters: ResolvedParameters) -> Flow:
        ordering = _choice("ordering", parameters["ordering"], ORDERINGS)
        submit = self._context.submit
        return Flow(
            lambda message: submit(subscription, message),
            ordering=ordering,
            max_in_flight=topic.whole("maxInFlight", parameters["maxInFlight"]),
            max_uncommitted=topic.whole("maxUncommitted", parameters["maxUncommitted"]),
        )

    def _report(self, subscription: SubscriptionReference, text: str | None) -> None:
        if text is None:
            self._context.report(subscription)
        else:
            self._context.report(subscription, "Blocked", text)

    def _end_feed(self, subscription: SubscriptionReference) -> None:
        with self._lock:
            feed = self._feeds.pop(subscription, None)
        if feed is not None:
            feed.close()
            if feed.is_reported:
                self._report(subscription, None)  # whoever reads on says it again if it still holds

    def _watch(self) -> None:
        """Once the host stops, no feed reads on; they stay in their groups until what is in flight is settled."""
        self._context.stopping.wait()
        with self._lock:
            feeds = list(self._feeds.values())
        for feed in feeds:
            feed.pause()

    def _close(self) -> None:
        with self._lock:
            feeds, self._feeds = list(self._feeds.values()), {}
        # Leaving a group takes a round trip: together they take no longer than one.
        threads = [threading.Thread(target=feed.close, daemon=True) for feed in feeds]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self._producers.close()


def _choice(name: str, value: str, allowed: tuple[T, ...]) -> T:
    for choice in allowed:
        if choice == value:
            return choice
    raise PermanentError(f"{name}: {value!r} is none of {', '.join(allowed)}")
