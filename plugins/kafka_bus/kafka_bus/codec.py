"""Driver: converts events to Kafka records and back (CloudEvents Kafka protocol binding 1.0.2, sections 3.1 to 3.3).

Binary mode: attributes are headers `ce_NAME` in UTF-8, `content-type` is a header, the value is the data. Structured
and batched mode: the value is the whole event, and the content type says so. HTTP percent-encodes attributes (HTTP
binding 1.0.2, section 3.1.3.2) and Kafka does not, so they are decoded and encoded here.
"""

from __future__ import annotations

import json
import re
import urllib.parse
from collections.abc import Iterable
from typing import NamedTuple

from bus_core import ForwardedHeaders, Message

STRUCTURED = "application/cloudevents+json"
KEY = "partitionkey"

_HTTP = "ce-"
_KAFKA = "ce_"
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
# All printable ASCII except space, double quote and percent (HTTP binding, section 3.1.3.2).
_SAFE = "!#$&'()*+,-./:;<=>?@[\\]^_`{|}~"


class Record(NamedTuple):
    """The parts of a Kafka record that is to be produced."""

    key: bytes | None
    value: bytes
    headers: list[tuple[str, bytes]]

    @property
    def size(self) -> int:
        """About the bytes on the wire. The framing of a batch with one record takes 70 bytes at most."""
        headers = sum(len(name) + len(value) + 4 for name, value in self.headers)
        return len(self.key or b"") + len(self.value) + headers + 90


def to_record(message: Message) -> Record:
    """The record of an event. Its key is the `partitionkey` extension; without it, the record has no key."""
    headers = []
    for name, value in message.headers.items():
        if name.startswith(_HTTP):
            plain = urllib.parse.unquote(value, errors="replace") if "%" in value else value
            headers.append((_KAFKA + name[3:], plain.encode()))
        else:
            headers.append((name, value.encode()))
    return Record(_key(message), message.payload, headers)


def _key(message: Message) -> bytes | None:
    found = message.headers.get(_HTTP + KEY)
    if found is not None:
        return urllib.parse.unquote(found, errors="replace").encode()
    if message.headers.get("content-type", "").partition(";")[0].strip().lower() != STRUCTURED:
        return None
    try:
        event = json.loads(message.payload)
    except ValueError:
        return None  # Subscribers judge the data. Here it is just an event without a key.
    found = event.get(KEY) if isinstance(event, dict) else None
    return found.encode(errors="replace") if isinstance(found, str) else None


def to_message(
    value: bytes | None, headers: Iterable[tuple[str, bytes | None]], forwarded: ForwardedHeaders
) -> Message:
    """The event of a record. Any Kafka client may have produced it.

    Args:
        value: None (a tombstone) means an event without data.
        headers: of a repeated header, the first one counts.
        forwarded: says which headers besides the attributes are kept.
    """
    found: dict[str, str] = {}
    for raw_name, raw_value in headers:
        name = raw_name.lower()
        if name.startswith(_KAFKA):
            name = _HTTP + name[3:]
            if name not in found and _is_token(name):
                found[name] = urllib.parse.quote(raw_value or b"", safe=_SAFE)
        elif name not in found and name in forwarded and _is_token(name):
            # Other producers may write control characters. A line break would end the HTTP header.
            found[name] = _CONTROL.sub(" ", (raw_value or b"").decode(errors="replace"))
    return Message(found, value or b"")


def _is_token(name: str) -> bool:
    return re.fullmatch(r"[!#$%&'*+.^_`|~0-9a-z-]+", name) is not None
