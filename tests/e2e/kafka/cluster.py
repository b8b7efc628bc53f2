"""Real Apache Kafka brokers as processes of their own, on loopback: one or three, with TLS and SASL listeners."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import uuid
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from tests.support import ROOT, free_port, wait_for

CACHE = Path(os.environ.get("BUS_E2E_CACHE", ROOT / ".cache" / "e2e"))
POM = Path(__file__).with_name("pom.xml")


def jars() -> Path:
    """The folder with Kafka's jars; fetched once with Maven."""
    for tool in ("java", "mvn"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is missing: real brokers need Java 17 and Maven")
    folder = CACHE / "kafka-4.1.0"
    if not folder.exists():
        making = CACHE / f"kafka-making-{os.getpid()}"
        command = ["mvn", "-q", "-B", "-f", str(POM), "dependency:copy-dependencies", f"-DoutputDirectory={making}"]
        result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
        assert result.returncode == 0, f"Maven could not fetch Kafka: {result.stdout[-2000:]}"
        making.rename(folder)
    return folder


@dataclass
class Broker:
    """One node, broker and controller in one."""

    number: int
    folder: Path
    port: int
    controller_port: int
    tls_port: int = 0
    process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def signal(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)


@dataclass
class Cluster:
    """Brokers of one cluster. `security` adds a listener with TLS and SASL/SCRAM to each."""

    folder: Path
    size: int = 1
    security: dict[str, str] = field(default_factory=dict)
    scram: dict[str, str] = field(default_factory=dict)
    brokers: list[Broker] = field(default_factory=list)

    @property
    def bootstrap(self) -> str:
        return ",".join(broker.address for broker in self.brokers)

    @property
    def secure_bootstrap(self) -> str:
        return ",".join(f"localhost:{broker.tls_port}" for broker in self.brokers)

    def start(self) -> Cluster:
        identity = uuid.uuid4().hex[:22]
        self.brokers = [
            Broker(
                number, self.folder / f"node-{number}", free_port(), free_port(), free_port() if self.security else 0
            )
            for number in range(1, self.size + 1)
        ]
        for broker in self.brokers:
            broker.folder.mkdir(parents=True)
            (broker.folder / "server.properties").write_text(self._properties(broker))
            command = ["format", "-t", identity, "-c", str(broker.folder / "server.properties")]
            for user, password in self.scram.items():
                command += ["--add-scram", f"SCRAM-SHA-512=[name={user},password={password}]"]
            self._java("kafka.tools.StorageTool", *command, heap="64m")
        for broker in self.brokers:
            self.run(broker)
        self.wait_ready()
        return self

    def run(self, broker: Broker) -> None:
        """Start a broker, or start it again."""
        log = (broker.folder / "log.txt").open("ab")
        command = self._command("kafka.Kafka", str(broker.folder / "server.properties"), heap="400m")
        broker.process = subprocess.Popen(command, stdout=log, stderr=log, cwd=broker.folder)
        log.close()

    def wait_ready(self, timeout: float = 60) -> None:
        """Until all brokers are there and every partition of every topic has a leader."""
        admin = AdminClient({"bootstrap.servers": self.bootstrap, "log_level": 0})

        def ready() -> bool:
            with contextlib.suppress(KafkaException):
                metadata = admin.list_topics(timeout=2)
                leaders = [p.leader for topic in metadata.topics.values() for p in topic.partitions.values()]
                return len(metadata.brokers) == self.size and all(leader >= 0 for leader in leaders)
            return False

        wait_for(ready, timeout, "the brokers are ready")

    def stop(self) -> None:
        for broker in self.brokers:
            if broker.process is not None and broker.process.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    broker.signal(signal.SIGCONT)
                broker.process.kill()
                broker.process.wait()

    def _properties(self, broker: Broker) -> str:
        voters = ",".join(f"{other.number}@127.0.0.1:{other.controller_port}" for other in self.brokers)
        copies = min(self.size, 3)
        listeners = [f"PLAINTEXT://127.0.0.1:{broker.port}", f"CONTROLLER://127.0.0.1:{broker.controller_port}"]
        advertised = [f"PLAINTEXT://127.0.0.1:{broker.port}"]
        extra: dict[str, str] = {}
        if self.security:
            listeners.append(f"SASL_SSL://127.0.0.1:{broker.tls_port}")
            advertised.append(f"SASL_SSL://localhost:{broker.tls_port}")
            extra = {
                "sasl.enabled.mechanisms": "SCRAM-SHA-512",
                "listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config": (
                    "org.apache.kafka.common.security.scram.ScramLoginModule required;"
                ),
                **self.security,
            }
        lines = {
            "process.roles": "broker,controller",
            "node.id": str(broker.number),
            "controller.quorum.voters": voters,
            "listeners": ",".join(listeners),
            "advertised.listeners": ",".join(advertised),
            "controller.listener.names": "CONTROLLER",
            "inter.broker.listener.name": "PLAINTEXT",
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SASL_SSL:SASL_SSL",
            "log.dirs": str(broker.folder / "data"),
            "auto.create.topics.enable": "false",
            "group.initial.rebalance.delay.ms": "0",
            "group.min.session.timeout.ms": "1000",
            "offsets.topic.replication.factor": str(copies),
            "offsets.topic.num.partitions": "5",
            "transaction.state.log.replication.factor": str(copies),
            "transaction.state.log.min.isr": "1",
            "share.coordinator.state.topic.replication.factor": str(copies),
            "share.coordinator.state.topic.min.isr": "1",
            "default.replication.factor": str(copies),
            "min.insync.replicas": str(max(copies - 1, 1)),
            "num.network.threads": "2",
            "num.io.threads": "2",
            "broker.session.timeout.ms": "4000",
            "broker.heartbeat.interval.ms": "500",
            "log.retention.check.interval.ms": "600000",
            **extra,
        }
        return "".join(f"{name}={value}\n" for name, value in lines.items())

    def _java(self, main: str, *arguments: str, heap: str) -> None:
        result = subprocess.run(
            self._command(main, *arguments, heap=heap), capture_output=True, text=True, check=False, timeout=60
        )
        assert result.returncode == 0, result.stdout + result.stderr

    @staticmethod
    def _command(main: str, *arguments: str, heap: str) -> list[str]:
        options = [f"-Xmx{heap}", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:-UsePerfData"]
        return ["java", *options, "-cp", f"{jars()}/*", main, *arguments]


def refuses(address: str) -> bool:
    """Nobody listens there any more."""
    host, _, port = address.rpartition(":")
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex((host, int(port))) != 0
