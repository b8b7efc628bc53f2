"""Source: the stored objects, their keys and digests, and the secrets that must not be stored."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any, cast

from bus_core.control_plane.crds.validation import Problem
from bus_core.model.destination import parse_destination
from bus_core.model.errors import DestinationError
from bus_core.model.references import DEFAULT_NAMESPACE
from bus_core.model.resources import Kind, ResourceKey

Object = dict[str, Any]

_DESTINATIONS: tuple[tuple[str, ...], ...] = (("subscriber",), ("replyTo",), ("delivery", "deadLetterSink"))


def object_key(data: Mapping[str, Any]) -> ResourceKey:
    """The key of a stored object or a manifest. A manifest may omit the namespace.

    Raises:
        KeyError: the object has no kind, metadata or name.
    """
    kind, metadata = data["kind"], data["metadata"]
    namespace = "" if kind == "ClusterBus" else metadata.get("namespace") or DEFAULT_NAMESPACE
    return ResourceKey(cast(Kind, kind), namespace, metadata["name"])


def manifest_digest(data: Mapping[str, Any]) -> str:
    """A digest of the parts of a manifest that are stored: spec, labels and annotations."""
    metadata = data["metadata"]
    said = [data.get("spec") or {}, metadata.get("labels") or {}, metadata.get("annotations") or {}]
    return digest_of(json.dumps(said, sort_keys=True))


def digest_of(text: str) -> str:
    """A digest of a text, 128 bits."""
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def secret_destinations(data: Mapping[str, Any]) -> Iterator[Problem]:
    """Destinations that a bus refuses and that may contain a password, such as https://USER:PASSWORD@HOST/.

    Their manifests are refused, so the password is not stored. The problem's text hides the password.
    """
    for path, text in _destinations(data):
        if "@" in text:
            try:
                parse_destination(text)
            except DestinationError as error:
                yield Problem(("spec", *path), str(error))


def masked_destinations(data: Object) -> Object:
    """A copy of the object in which `...` replaces the text before the @ in refused destinations."""
    refused = {problem.path for problem in secret_destinations(data)}
    if not refused:
        return data
    masked = copy.deepcopy(data)
    for path, text in _destinations(masked):
        if ("spec", *path) in refused:
            field = masked["spec"]
            for name in path[:-1]:
                field = field[name]
            before, _, after = text.rpartition("@")
            scheme, separator, _ = before.partition("://")
            field[path[-1]] = f"{scheme}{separator}...@{after}" if separator else f"...@{after}"
    return masked


def _destinations(data: Mapping[str, Any]) -> Iterator[tuple[tuple[str, ...], str]]:
    for path in _DESTINATIONS:
        value: Any = data.get("spec")
        for name in path:
            value = value.get(name) if isinstance(value, Mapping) else None
        if isinstance(value, str):
            yield path, value
