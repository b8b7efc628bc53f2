"""What a Kafka error means for the host, in one sentence that says what to do. No secret ever gets in here."""

from __future__ import annotations

import re
import threading

from confluent_kafka import KafkaError, KafkaException

from bus_core import BusError, InvalidMessageError, MessageTooLargeError, PermanentError, TemporaryError

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
    KafkaError._UNKNOWN_TOPIC,
    KafkaError._UNKNOWN_PARTITION,
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.NOT_COORDINATOR,
}
"""What a topic or a group says that has just been made, or just moved."""

_VAGUE = {KafkaError._ALL_BROKERS_DOWN, KafkaError._TRANSPORT, KafkaError._TIMED_OUT}


_EACH_TIME = re.compile(r" \(after \d+ms in state \w+(?:, \d+ identical error\(s\) suppressed)?\)")


class Trouble:
    """Remembers what a client last complained about: an administrative request that fails says only that it timed
    out, while the reason went to the client's error callback. Thread-safe."""

    def __init__(self, brokers: str) -> None:
        self._brokers = brokers
        self._lock = threading.Lock()
        self._last: KafkaError | None = None

    def note(self, error: KafkaError) -> None:
        """The `error_cb` of a client. A vague complaint does not push out one that says why."""
        with self._lock:
            if self._last is None or error.code() not in _VAGUE or self._last.code() in _VAGUE:
                self._last = error

    def clear(self) -> None:
        """A request went well."""
        with self._lock:
            self._last = None

    def sentence(self, error: KafkaError) -> str:
        """What is the matter, and which setting it is about."""
        with self._lock:
            last = self._last
        if error.code() in {*_VAGUE, KafkaError._MSG_TIMED_OUT} and last is not None:
            error = last
        text = error.str()
        code = error.code()
        if code == KafkaError._AUTHENTICATION or "uthentication fail" in text:
            return (
                f"the brokers {self._brokers} refuse the login: "
                "check kafka.username, kafka.password and kafka.sasl_mechanism"
            )
        if code == KafkaError._RESOLVE or "Failed to resolve" in text:
            return f"unknown host among kafka.brokers {self._brokers}: {_short(text)}"
        if code == KafkaError._SSL or "SSL handshake" in text or "certificate" in text:
            if "certificate verify failed" in text or "verif" in text:
                return f"the certificate of {self._brokers} is not signed by a known authority: check kafka.ca_file"
            return f"no TLS with {self._brokers}: check kafka.tls, kafka.ca_file and kafka.cert_file ({_short(text)})"
        if code == KafkaError._MSG_TIMED_OUT:
            return (
                "not acknowledged within kafka.produce_timeout: the brokers are slow, or too few replicas are in sync"
            )
        if code in _VAGUE:
            return f"no Kafka broker answers at {self._brokers}: check kafka.brokers and the network ({_short(text)})"
        return _short(text)

    def as_error(self, what: str, failure: KafkaException | KafkaError) -> BusError:
        """The error to raise from a resource hook, or to answer a sender with."""
        error = failure.args[0] if isinstance(failure, KafkaException) else failure
        code = error.code()
        if code == KafkaError.MSG_SIZE_TOO_LARGE:
            return MessageTooLargeError(f"{what}: the event is larger than its topic allows (max.message.bytes)")
        if code == KafkaError.INVALID_RECORD:
            return InvalidMessageError(
                f"{what}: the brokers refuse the record; a compacted topic takes none without a key (ce-partitionkey)"
            )
        sentence = f"{what}: {self.sentence(error)}"
        if code in _DENIED:
            return PermanentError(f"{sentence}; the principal of the bus lacks this right")
        if code in _INVALID:
            return PermanentError(sentence)
        return TemporaryError(sentence, retry_after=0.2 if code in _SOON else 2.0)


def _short(text: str) -> str:
    """The first line of what librdkafka says, without what differs each time: a message that changes is news."""
    line = _EACH_TIME.sub("", text.splitlines()[0]) if text else "no reason given"
    return line if len(line) <= 300 else f"{line[:300]}…"
