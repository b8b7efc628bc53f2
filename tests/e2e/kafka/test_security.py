"""TLS and SASL/SCRAM on a real broker: what works, what each mistake is called, and that no secret is ever shown."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.dispatch.test_tls import make_authority
from tests.e2e.kafka.cluster import Cluster
from tests.e2e.kafka.setting import Setting
from tests.support import request, subscriber, wait_for

USER, PASSWORD, WRONG = "bus", "s3cr3t-of-the-bus", "an0ther-s3cr3t"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an authority, a broker's certificate from it, and another authority."""
    folder = tmp_path_factory.mktemp("authority")
    make_authority(folder)
    key = folder / "server.p8"
    command = ["openssl", "pkcs8", "-topk8", "-nocrypt", "-in", str(folder / "server.key"), "-out", str(key)]
    subprocess.run(command, check=True, timeout=20)
    (folder / "broker.pem").write_text(key.read_text() + (folder / "server.pem").read_text())
    (folder / "other").mkdir()
    make_authority(folder / "other")
    return folder


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory, authority: Path) -> Iterator[Cluster]:
    security = {
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": str(authority / "broker.pem"),
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": str(authority / "ca.pem"),
        "ssl.client.auth": "requested",
    }
    cluster = Cluster(tmp_path_factory.mktemp("kafka"), security=security, scram={USER: PASSWORD})
    try:
        yield cluster.start()
    finally:
        cluster.stop()


def options(cluster: Cluster, authority: Path, **changes: str) -> list[str]:
    given = {
        "brokers": cluster.secure_bootstrap,
        "ca_file": str(authority / "ca.pem"),
        "username": USER,
        "request_timeout": "4",
        **changes,
    }
    return [part for name, value in given.items() for part in ("--set", f"kafka.{name}={value}")]


def test_tls_scram_and_a_client_certificate_work(secure: Cluster, authority: Path, tmp_path: Path) -> None:
    setting = Setting(secure, tmp_path, "secure")
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    (secrets / "KAFKA_PASSWORD").write_text(PASSWORD + "\n")
    try:
        with subscriber() as server:
            setting.channel("orders")
            setting.subscription("one", "orders", server.url())
            mutual = {"cert_file": str(authority / "server.pem"), "key_file": str(authority / "server.key")}
            host = setting.start(
                *options(secure, authority, **mutual), "--secrets-dir", str(secrets), served=("orders",)
            )
            assert host.send("orders", b"an event").status == 202
            wait_for(lambda: server.bodies() == [b"an event"])
            assert host.stop() == 0
            assert PASSWORD not in host.log
    finally:
        setting.close()


@pytest.mark.parametrize(
    ("changes", "password", "says"),
    [
        ({}, WRONG, "reject the login"),
        ({"username": "nobody"}, PASSWORD, "reject the login"),
        ({"ca_file": "other/ca.pem"}, PASSWORD, "not signed by a known authority"),
        ({"brokers": "no-such-host.invalid:9092"}, PASSWORD, "unknown host"),
        ({"brokers": "127.0.0.1:1"}, PASSWORD, "no Kafka broker answers"),
    ],
    ids=["a wrong password", "an unknown user", "a wrong authority", "an unknown host", "nobody there"],
)
def test_a_mistake_is_one_sentence_that_names_it(
    secure: Cluster, authority: Path, tmp_path: Path, changes: dict[str, str], password: str, says: str
) -> None:
    setting = Setting(secure, tmp_path, "wrong")
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    (secrets / "KAFKA_PASSWORD").write_text(password)
    if "ca_file" in changes:
        changes = {"ca_file": str(authority / changes["ca_file"])}
    try:
        setting.channel("orders")
        host = setting.start(*options(secure, authority, **changes), "--secrets-dir", str(secrets), ready=False)
        wait_for(lambda: host.says(says), 30, says)
        wait_for(lambda: len([line for line in host.says(says) if "orders" in line]) >= 1, 30, "the channel says so")
        wait_for(lambda: says in setting.status("Channel", "orders").get("Ready", {}).get("message", ""), 30)
        answer = request(host.admin, "GET", "/readyz", body=None)
        assert answer.status == 503
        assert says in answer.text
        assert len(answer.text.strip().splitlines()) <= 2
        refused, metrics = host.send("orders"), request(host.admin, "GET", "/metrics", body=None)
        assert (refused.status, metrics.status) == (503, 200)
        assert "Traceback" not in host.log
        assert host.stop() == 0
        shown = host.log + answer.text + refused.text + metrics.text
        shown += "".join(path.read_bytes().decode(errors="replace") for path in setting.state.glob("state.db*"))
        assert password not in shown
        assert len(host.lines) < 40, "it is tried again with back-off, and said again only when it changes"
    finally:
        setting.close()
