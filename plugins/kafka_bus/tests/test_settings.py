"""Settings: mistakes are named, librdkafka gets its properties, and no secret shows."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from kafka_bus.settings import KafkaSettings


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({}, "brokers"),
        ({"topic": "{namespace}.{chanel}"}, "{chanel}"),
        ({"topic": "{channel}"}, "lacks {namespace}"),
        ({"topic": "{namespace}-{channel}"}, "a dot or an underscore"),
        ({"topic": "{namespace"}, "not a template"),
        ({"cert_file": "/etc/hostname"}, "go together"),
        ({"ca_file": "/nowhere.pem"}, "there is no file"),
        ({"username": "u"}, "needs a password"),
        ({"config": {"group.id": "x"}}, "group.id"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_a_mistake_is_named(given: dict[str, object], says: str) -> None:
    brokers = {} if says == "brokers" else {"brokers": "x:1"}
    with pytest.raises(ValidationError, match=says.replace("{", r"\{")):
        KafkaSettings.model_validate({**brokers, **given})


def test_what_librdkafka_is_told(tmp_path: Path) -> None:
    pem = tmp_path / "a.pem"
    pem.touch()
    plain = KafkaSettings.model_validate({"brokers": "a:1,b:2"}).client_config()
    assert plain["bootstrap.servers"] == "a:1,b:2"
    assert plain["security.protocol"] == "PLAINTEXT"
    files = {"ca_file": pem, "cert_file": pem, "key_file": pem}
    login = {"username": "u", "password": "p"}
    settings = KafkaSettings.model_validate({"brokers": "a:1", **files, **login, "config": {"x.y": "z"}})
    config = settings.client_config()
    assert config["security.protocol"] == "SASL_SSL"
    assert config["sasl.password"] == "p"
    assert config["sasl.mechanism"] == "SCRAM-SHA-512"
    assert config["ssl.ca.location"] == str(pem)
    assert config["x.y"] == "z"


def test_no_secret_shows() -> None:
    login = {"username": "u", "password": "hunter2", "key_password": "hunter2"}
    settings = KafkaSettings.model_validate({"brokers": "a:1", **login})
    assert "hunter2" not in repr(settings) + str(settings) + settings.model_dump_json()
