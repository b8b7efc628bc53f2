"""The Kafka driver beside the stub, a bare produce loop, and a bare consume loop with a urllib3 pool."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import urllib3
from confluent_kafka import OFFSET_END, Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from tests.bench.hosts import CHANNEL, HOST, drained, host
from tests.bench.machine import Nginx, cpu, nginx, rss, threads, wrk
from tests.bench.report import MissingTool, Report, Spread, merge, ratio
from tests.e2e.kafka.cluster import Cluster
from tests.support import wait_for

TITLE = "Kafka: accepted with an acknowledgement, and delivered from a full topic"
BODY = 256
POOL = 8
CONNECTIONS = 128
WARM_UP = 10.0
WINDOW = 100_000
"""So many unacknowledged at once of a loop that need not wait."""
DELIVERIES = 20_000
TOPIC = f"knative-bus.default.bench.{CHANNEL}"


def run(rounds: int, seconds: float) -> list[Report]:
    with tempfile.TemporaryDirectory() as folder, nginx() as sink:
        cluster = Cluster(Path(folder))
        try:
            cluster.start()
        except pytest.skip.Exception as missing:
            raise MissingTool(str(missing)) from None
        try:
            brokers = ("--set", f"kafka.brokers={cluster.bootstrap}")
            return [
                _accept(cluster, brokers, sink, rounds, seconds),
                _deliver(cluster, brokers, sink, rounds),
                _size(brokers, sink),
            ]
        finally:
            cluster.stop()


def _accept(cluster: Cluster, brokers: tuple[str, str], sink: Nginx, rounds: int, seconds: float) -> Report:
    found = []
    admin = AdminClient({"bootstrap.servers": cluster.bootstrap, "log_level": 0})
    admin.create_topics([NewTopic("produce-loop", 1, 1)])["produce-loop"].result(10)
    with host("stub", 0, sink.url) as stub, host("kafka", 0, sink.url, *brokers) as kafka:
        # A broker is half as fast until its JVM has compiled what it does.
        wrk(kafka.events, HOST, seconds=WARM_UP, connections=CONNECTIONS, body=BODY)
        for number in range(rounds + 1):
            figures = {}
            for name, process in (("stub", stub), ("kafka", kafka)):
                before = cpu(process.worker_pids())
                load = wrk(process.events, HOST, seconds=seconds, connections=CONNECTIONS, body=BODY)
                figures[f"{name} rate"] = load.accepted / load.seconds
                figures[f"{name} cpu"] = (cpu(process.worker_pids()) - before) / load.accepted * 1e6
            # At the rate that was just accepted: what a produce costs depends on how many share a batch.
            figures |= _alone("produce", cluster.bootstrap, str(seconds), str(figures["kafka rate"]))
            figures |= {f"piped {name}": value for name, value in _alone("produce", cluster.bootstrap, "1").items()}
            if number:
                found.append(figures)
    by = merge(found)
    report = Report(TITLE, ["way", "events/s", "CPU µs each"])
    report.row("the receiver with the stub bus", Spread.of(by["stub rate"]), Spread.of(by["stub cpu"]))
    report.row("the receiver with Kafka, 202 = acknowledged", Spread.of(by["kafka rate"]), Spread.of(by["kafka cpu"]))
    report.row("a bare produce loop, at that rate", Spread.of(by["produce rate"]), Spread.of(by["produce cpu"]))
    report.row(
        "a bare produce loop, pipelined", Spread.of(by["piped produce rate"]), Spread.of(by["piped produce cpu"])
    )
    allowed = [one + 2 * other for one, other in zip(by["stub cpu"], by["produce cpu"], strict=True)]
    report.at_least("accepted with Kafka, of those with the stub", ratio(by["kafka rate"], by["stub rate"]), 0.7)
    report.at_most("CPU with Kafka, of receiver + 2 × produce", ratio(by["kafka cpu"], allowed), 1.0)
    return report


def _deliver(cluster: Cluster, brokers: tuple[str, str], sink: Nginx, rounds: int) -> Report:
    found = []
    _fill(cluster.bootstrap, DELIVERIES)
    for number in range(rounds + 1):
        before = sink.count()
        with host("kafka", 1, sink.url, *brokers, suffix=f"-{number}", initialOffset="Oldest") as process:
            wait_for(lambda before=before: sink.count() > before, 60, "the first delivery")  # type: ignore[misc]
            start, begun, used = sink.count(), time.monotonic(), cpu(process.worker_pids())
            arrived = drained(sink.count, before + DELIVERIES)
            rate = (arrived - start) / (time.monotonic() - begun)
            each = (cpu(process.worker_pids()) - used) / (arrived - start) * 1e6
        assert arrived - before == DELIVERIES, f"{arrived - before} of {DELIVERIES} were delivered"
        figures = {"bus rate": rate, "bus cpu": each}
        figures |= _alone("consume", cluster.bootstrap, sink.url())
        if number:
            found.append(figures)
    by = merge(found)
    report = Report("Kafka: delivered from a full topic", ["way", "deliveries/s", "CPU µs each"])
    report.row("the bus", Spread.of(by["bus rate"]), Spread.of(by["bus cpu"]))
    report.row("a bare consume loop + urllib3 pool", Spread.of(by["consume rate"]), Spread.of(by["consume cpu"]))
    report.at_least("delivered by the bus, of the bare loop", ratio(by["bus rate"], by["consume rate"]), 1.0)
    return report


def _size(brokers: tuple[str, str], sink: Nginx) -> Report:
    report = Report("Kafka: what a subscription costs a worker", ["subscriptions", "RSS MB", "threads", "sockets"])
    for count in (1, 50, 200):
        with host("kafka", count, sink.url, *brokers, suffix="-size") as process:
            wait_for(lambda: len(process.says("partitions assigned")) >= count, 120)  # noqa: B023
            pids = process.worker_pids()
            sockets = sum(
                str(entry.readlink()).startswith("socket:")
                for pid in pids
                for entry in Path(f"/proc/{pid}/fd").iterdir()
            )
            report.row(count, rss(pids), threads(pids), sockets)
    return report


def _fill(brokers: str, count: int) -> None:
    admin = AdminClient({"bootstrap.servers": brokers, "log_level": 0})
    if TOPIC not in admin.list_topics(timeout=10).topics:
        admin.create_topics([NewTopic(TOPIC, 1, 1)])[TOPIC].result(10)
    admin.delete_records([TopicPartition(TOPIC, 0, OFFSET_END)])
    producer = Producer({"bootstrap.servers": brokers, "acks": "all", "log_level": 0})
    for number in range(count):
        producer.produce(TOPIC, b"x" * BODY, headers=[("ce_id", str(number).encode())])
        if number % 1000 == 0:
            producer.poll(0)
    assert producer.flush(60) == 0


def _alone(way: str, *arguments: str) -> dict[str, float]:
    """Run a bare loop as a process of its own, so that its CPU is counted alone."""
    command = [sys.executable, "-m", "tests.bench.kafka", way, *arguments]
    found: dict[str, float] = json.loads(subprocess.run(command, capture_output=True, check=True, timeout=120).stdout)
    return found


def _produce(brokers: str, seconds: str, rate: str = "inf") -> dict[str, float]:
    """Acknowledged by all replicas, a callback for each, so many a second."""
    producer = Producer({"bootstrap.servers": brokers, "acks": "all", "enable.idempotence": True, "linger.ms": 1})
    sent, acknowledged = 0, [0]

    def count_it(*_: object) -> None:
        acknowledged[0] += 1

    end, begun, used = time.monotonic() + float(seconds), time.monotonic(), time.process_time()
    while (now := time.monotonic()) < end:
        if sent - acknowledged[0] < WINDOW and sent < (now - begun) * float(rate):
            producer.produce("produce-loop", b"x" * BODY, on_delivery=count_it)
            sent += 1
            producer.poll(0)
        else:
            producer.poll(0)
            time.sleep(0.001)
    producer.flush(30)
    count = acknowledged[0]
    taken = time.monotonic() - begun
    return {"produce rate": count / taken, "produce cpu": (time.process_time() - used) / count * 1e6}


def _consume(brokers: str, url: str) -> dict[str, float]:
    """What somebody would write: a consumer, a pool of threads, a pool of connections."""
    config = {"bootstrap.servers": brokers, "group.id": uuid.uuid4().hex, "auto.offset.reset": "earliest"}
    consumer = Consumer({**config, "enable.auto.commit": False})
    consumer.subscribe([TOPIC])
    address = urlsplit(url)
    pool = urllib3.HTTPConnectionPool("127.0.0.1", address.port, maxsize=POOL)
    room, done = threading.Semaphore(POOL * 2), itertools.count()

    def deliver(value: bytes) -> None:
        assert pool.urlopen("POST", "/", body=value, headers={"content-type": "text/plain"}).status == 204
        next(done)
        room.release()

    taken = 0
    begun, used = time.monotonic(), time.process_time()
    with ThreadPoolExecutor(POOL) as executor:
        while taken < DELIVERIES:
            for message in consumer.consume(200, 1.0):
                if taken == 0:
                    begun, used = time.monotonic(), time.process_time()
                taken += 1
                room.acquire()
                executor.submit(deliver, message.value())
        consumer.commit()
    count = next(done)
    assert count == DELIVERIES, count
    spent = time.monotonic() - begun
    return {"consume rate": count / spent, "consume cpu": (time.process_time() - used) / count * 1e6}


if __name__ == "__main__":
    loops: dict[str, Callable[..., dict[str, float]]] = {"produce": _produce, "consume": _consume}
    print(json.dumps(loops[sys.argv[1]](*sys.argv[2:])))
