"""A bus on real brokers: its manifests, its processes, and the account of what was sent and what arrived."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from confluent_kafka import ConsumerGroupTopicPartitions, Producer
from confluent_kafka.admin import AdminClient

from tests.e2e.kafka.cluster import Cluster
from tests.support import BusProcess, manifest, stored, wait_for


@dataclass(frozen=True)
class Account:
    """What became of the events of a test."""

    sent: int
    acknowledged: int
    delivered: int
    duplicates: int
    lost: set[bytes]

    @classmethod
    def of(cls, sent: int, acknowledged: set[bytes], arrived: list[bytes]) -> Account:
        found = Counter(body for body in arrived if body in acknowledged)
        made = cls(sent, len(acknowledged), len(found), sum(found.values()) - len(found), acknowledged - set(found))
        print(
            f"\nsent {made.sent}, acknowledged {made.acknowledged}, delivered {made.delivered}, "
            f"duplicates {made.duplicates}, lost {len(made.lost)}"
        )
        return made


class Setting:
    """One bus: write manifests, start hosts, look at Kafka from outside."""

    def __init__(self, cluster: Cluster, folder: Path, name: str) -> None:
        self.cluster = cluster
        self.name = name
        self.manifests = folder / "manifests"
        self.manifests.mkdir()
        self.state = folder / "state"
        self.hosts: list[BusProcess] = []
        self.objects: dict[tuple[str, str], dict[str, Any]] = {}
        self.add(manifest("Bus", name, driver="kafka"))
        self.admin = AdminClient({"bootstrap.servers": cluster.bootstrap, "log_level": 0})

    def add(self, *objects: dict[str, Any]) -> None:
        for item in objects:
            self.objects[item["kind"], item["metadata"]["name"]] = item
        self._write()

    def remove(self, kind: str, name: str) -> None:
        del self.objects[kind, name]
        self._write()

    def channel(self, name: str, delivery: dict[str, Any] | None = None, **arguments: Any) -> None:
        self.add(manifest("Channel", name, bus=self.name, **_spec(delivery, arguments)))

    def subscription(
        self, name: str, channel: str, subscriber: str, *, replyTo: str = "", delivery: Any = None, **arguments: Any
    ) -> None:
        spec = _spec(delivery, arguments)
        if replyTo:
            spec["replyTo"] = replyTo
        self.add(manifest("Subscription", name, channel=channel, subscriber=subscriber, **spec))

    def start(self, *options: str, served: tuple[str, ...] = (), ready: bool = True, state: str = "") -> BusProcess:
        """Another host of the bus."""
        brokers = (
            []
            if any("kafka.brokers" in option for option in options)
            else ["--set", f"kafka.brokers={self.cluster.bootstrap}"]
        )
        folder = self.state.with_name(state) if state else self.state
        process = BusProcess(self.manifests, folder, *brokers, *options, bus=f"default/{self.name}")
        self.hosts.append(process)
        if ready:
            process.wait_ready(30)
        for channel in served:
            names = [
                f"default/{name}"
                for (kind, name), item in self.objects.items()
                if kind == "Subscription" and item["spec"]["channel"] == channel
            ]
            for fragments in [("serving", f"default/{channel}"), *(('"subscribed"', name) for name in names)]:
                wait_for(lambda fragments=fragments: process.says(*fragments), 30, f"{fragments} in the log")  # type: ignore[misc]
        return process

    def close(self) -> None:
        for host in self.hosts:
            host.kill()

    def topic(self, channel: str) -> str:
        return f"knative-bus.default.{self.name}.{channel}"

    def group(self, channel: str, subscription: str) -> str:
        return f"{self.topic(channel)}.{subscription}"

    def topics(self) -> set[str]:
        return set(self.admin.list_topics(timeout=10).topics)

    def groups(self) -> set[str]:
        listed = self.admin.list_consumer_groups(request_timeout=10).result()
        return {group.group_id for group in listed.valid}

    def committed(self, channel: str, subscription: str) -> dict[int, int]:
        """The group's offsets by partition."""
        asked = ConsumerGroupTopicPartitions(self.group(channel, subscription))
        (future,) = self.admin.list_consumer_group_offsets([asked], request_timeout=10).values()
        return {entry.partition: entry.offset for entry in future.result().topic_partitions}

    def produce(self, channel: str, *values: bytes, key: bytes | None = None, partition: int = -1) -> None:
        """Write records past the bus."""
        producer = Producer({"bootstrap.servers": self.cluster.bootstrap, "log_level": 0})
        for value in values:
            while True:
                try:
                    producer.produce(self.topic(channel), value, key, partition)
                    break
                except BufferError:
                    producer.poll(0.1)
        assert producer.flush(20) == 0

    def status(self, kind: str, name: str) -> dict[str, dict[str, Any]]:
        """The conditions of a resource, by type."""
        status = stored(self.state).get(f"{kind}/{name}", {}).get("status", {})
        return {condition["type"]: condition for condition in status.get("conditions", [])}

    def _write(self) -> None:
        text = yaml.safe_dump_all(list(self.objects.values()))
        target = self.manifests / "all.yaml"
        making = self.manifests / ".all.making"
        making.write_text(text)
        making.rename(target)


def _spec(delivery: dict[str, Any] | None, arguments: dict[str, Any]) -> dict[str, Any]:
    spec: dict[str, Any] = {}
    if arguments:
        spec["arguments"] = [{"name": name, "value": str(value)} for name, value in arguments.items()]
    if delivery:
        spec["delivery"] = delivery
    return spec
