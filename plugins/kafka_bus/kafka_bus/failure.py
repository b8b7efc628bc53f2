"""Driver: turns Kafka errors into errors of the driver contract, whose text says what to do and holds no secret."""

from __future__ import annotations

import re
import threading

from confluent_kafka import KafkaError, KafkaException

from bus_core import BusError, InvalidMessageError, MessageTooLargeError, PermanentError, TemporaryError
from kafka_bus.error_codes import LocalError

_DENIED = {
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.GROUP_AUTHORIZATION_FAILED,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED,
    KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
}
_INVALID = {
    KafkaError.TOPIC_EXCEPTION,
    KafkaError.INVALID_CONFIG,
    KafkaError.INVALID_PARTITIONS,
    KafkaError.INVALID_REPLICATION_FACTOR,
    KafkaError.INVALID_REPLICA_ASSIGNMENT,
    KafkaError.POLICY_VIOLATION,
    KafkaError.INVALID_REQUEST,
}
_SOON = {
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.UNKNOWN_TOPIC_OR_PART,
    LocalError.UNKNOWN_TOPIC,
    LocalError.UNKNOWN_PARTITION,
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.NOT_COORDINATOR,
}
"""A topic or a group that was just created or moved gives these errors for a short time."""

_VAGUE = {LocalError.ALL_BROKERS_DOWN, LocalError.TRANSPORT, LocalError.TIMED_OUT}
"""Errors that do not say why. A specific error that came before one of them is the better reason."""

_VARIABLE = re.compile(r" \(after \d+ms in state \w+(?:, \d+ identical error\(s\) suppressed)?\)")


class Trouble:
    """Remembers the last error of the clients. Thread-safe.

    A request that fails says only that it timed out; the client's error callback hears the reason.
    """

    def __init__(self, brokers: str) -> None:
        self._brokers = brokers
        self._lock = threading.Lock()  # guards `_last`
        self._last: KafkaError | None = None

    def note(self, error: KafkaError) -> None:
        """The `error_cb` of all clients, called on the threads that poll. A vague error replaces no specific one."""
        with self._lock:
            if self._last is None or error.code() not in _VAGUE or self._last.code() in _VAGUE:
                self._last = error

    def clear(self) -> None:
        """Forget the last error, because a request succeeded."""
        with self._lock:
            self._last = None

    def sentence(self, error: KafkaError) -> str:
        """Describe the error, and name the setting to check."""
        with self._lock:
            last = self._last
        if error.code() in {*_VAGUE, LocalError.MSG_TIMED_OUT} and last is not None:
            error = last
        text = error.str()
        code = error.code()
        if code == LocalError.AUTHENTICATION or "uthentication fail" in text:
            return (
                f"the brokers {self._brokers} reject the login: "
                "check kafka.username, kafka.password and kafka.sasl_mechanism"
            )
        if code == LocalError.RESOLVE or "Failed to resolve" in text:
            return f"unknown host among kafka.brokers {self._brokers}: {_short(text)}"
        if code == LocalError.SSL or "SSL handshake" in text or "certificate" in text:
            if "certificate verify failed" in text or "verif" in text:
                return f"the certificate of {self._brokers} is not signed by a known authority: check kafka.ca_file"
            return (
                f"no TLS connection to {self._brokers}: "
                f"check kafka.tls, kafka.ca_file and kafka.cert_file ({_short(text)})"
            )
        if code == LocalError.MSG_TIMED_OUT:
            return (
                "not acknowledged within kafka.produce_timeout: the brokers are slow, or too few replicas are in sync"
            )
        if code in _VAGUE:
            return f"no Kafka broker answers at {self._brokers}: check kafka.brokers and the network ({_short(text)})"
        return _short(text)

    def as_error(self, subject: str, failure: KafkaException | KafkaError) -> BusError:
        """The error to raise from a hook. Its message begins with `subject`, such as `topic orders`."""
        error = failure.args[0] if isinstance(failure, KafkaException) else failure
        code = error.code()
        if code == KafkaError.MSG_SIZE_TOO_LARGE:
            return MessageTooLargeError(f"{subject}: the event is larger than its topic allows (max.message.bytes)")
        if code == KafkaError.INVALID_RECORD:
            return InvalidMessageError(
                f"{subject}: the brokers reject the record; a compacted topic needs a key in each (ce-partitionkey)"
            )
        sentence = f"{subject}: {self.sentence(error)}"
        if code in _DENIED:
            return PermanentError(f"{sentence}; the principal of the bus lacks this permission")
        if code in _INVALID:
            return PermanentError(sentence)
        return TemporaryError(sentence, retry_after=0.2 if code in _SOON else 2.0)


def _short(text: str) -> str:
    """The first line of librdkafka's text, without the parts that differ each time: a condition should not flap."""
    line = _VARIABLE.sub("", text.splitlines()[0]) if text else "no reason given"
    return line if len(line) <= 300 else f"{line[:300]}…"
