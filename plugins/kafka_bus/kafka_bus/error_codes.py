"""Driver: the error codes of librdkafka itself (rdkafka.h, `rd_kafka_resp_err_t`), which are below zero.

The Python client has them only as attributes that begin with an underscore.
"""

from __future__ import annotations

import enum


class LocalError(enum.IntEnum):
    """Errors that the client detects. Brokers' errors are public constants of `confluent_kafka.KafkaError`."""

    TRANSPORT = -195
    RESOLVE = -193
    MSG_TIMED_OUT = -192
    PARTITION_EOF = -191
    UNKNOWN_PARTITION = -190
    UNKNOWN_TOPIC = -188
    ALL_BROKERS_DOWN = -187
    TIMED_OUT = -185
    SSL = -181
    AUTHENTICATION = -169
    FATAL = -150
