"""Kafka errors become errors of the driver contract, with a sentence that names the setting."""

from __future__ import annotations

import pytest
from confluent_kafka import KafkaError

from bus_core import BusError, InvalidMessageError, MessageTooLargeError, PermanentError, TemporaryError
from kafka_bus.error_codes import LocalError
from kafka_bus.failure import Trouble


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (KafkaError.MSG_SIZE_TOO_LARGE, MessageTooLargeError),
        (KafkaError.INVALID_RECORD, InvalidMessageError),
        (KafkaError.NOT_ENOUGH_REPLICAS, TemporaryError),
        (KafkaError.NOT_ENOUGH_REPLICAS_AFTER_APPEND, TemporaryError),
        (LocalError.MSG_TIMED_OUT, TemporaryError),
        (LocalError.ALL_BROKERS_DOWN, TemporaryError),
        (KafkaError.UNKNOWN_TOPIC_OR_PART, TemporaryError),
        (KafkaError.TOPIC_AUTHORIZATION_FAILED, PermanentError),
        (KafkaError.INVALID_REPLICATION_FACTOR, PermanentError),
        (KafkaError.INVALID_CONFIG, PermanentError),
    ],
)
def test_each_code_asks_for_one_thing(code: int, kind: type[BusError]) -> None:
    error = Trouble("b:1").as_error("topic t", KafkaError(code))
    assert type(error) is kind
    assert str(error).startswith("topic t: ")
    assert "\n" not in str(error)


def test_what_differs_at_each_try_is_left_out() -> None:
    def say(text: str) -> str:
        return str(Trouble("b:1").as_error("x", KafkaError(LocalError.TRANSPORT, text)))

    first = say("b:1/bootstrap: Connect to ipv4#1.2.3.4:1 failed: Connection refused (after 3ms in state CONNECT)")
    later = say(
        "b:1/bootstrap: Connect to ipv4#1.2.3.4:1 failed: Connection refused"
        " (after 12ms in state CONNECT, 30 identical error(s) suppressed)"
    )
    assert first == later


@pytest.mark.parametrize(
    ("code", "text", "says"),
    [
        (LocalError.AUTHENTICATION, "SASL authentication error: Authentication failed", "kafka.password"),
        (LocalError.SSL, "ssl_handshake: certificate verify failed", "kafka.ca_file"),
        (LocalError.SSL, "ssl_handshake: wrong version number", "kafka.tls"),
        (LocalError.RESOLVE, "Failed to resolve 'nowhere:1'", "unknown host"),
        (LocalError.TRANSPORT, "Connection refused", "no Kafka broker answers at b:1"),
    ],
)
def test_the_reason_comes_from_what_the_client_complained_of(code: int, text: str, says: str) -> None:
    trouble = Trouble("b:1")
    trouble.note(KafkaError(code, text))
    trouble.note(KafkaError(LocalError.ALL_BROKERS_DOWN, "1/1 brokers are down"))
    sentence = str(trouble.as_error("x", KafkaError(LocalError.TIMED_OUT, "Failed while waiting for response")))
    assert says in sentence
    trouble.clear()
    assert says == "no Kafka broker answers at b:1" or says not in str(
        trouble.as_error("x", KafkaError(LocalError.TIMED_OUT, "timed out"))
    )


@pytest.mark.parametrize("code", LocalError)
def test_a_code_is_the_one_that_librdkafka_calls_so(code: LocalError) -> None:
    assert KafkaError(code).name() == f"_{code.name}"
