"""Control plane, CRDs: validates one object by the schema, and by the rules that a cluster evaluates as CEL."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

from jsonschema.exceptions import ValidationError
from openapi_schema_validator import OAS30Validator

from bus_core.control_plane.crds import schemas
from bus_core.control_plane.crds.conforms import conforms
from bus_core.model.resources import Kind
from bus_core.model.suggest import did_you_mean

DNS_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_NAME_RULE = "must be a DNS label of at most 63 characters, a-z, 0-9 and '-' (RFC 1123)"

_IMMUTABLE: dict[str, tuple[str, ...]] = {
    "Bus": ("driver",),
    "ClusterBus": ("driver",),
    "Channel": ("bus", "clusterBus"),
    "Subscription": ("channel",),
}


@dataclass(frozen=True, slots=True)
class Problem:
    """A mistake in an object. `path`: the field names and list indexes of its place."""

    path: tuple[str | int, ...]
    message: str

    @property
    def field(self) -> str:
        text = ""
        for part in self.path:
            text += f"[{part}]" if isinstance(part, int) else f".{part}"
        return text.lstrip(".")


def validate(data: Mapping[str, Any]) -> list[Problem]:
    """All mistakes in an object of one of the four kinds; empty if it is valid."""
    schema = schemas()[cast(Kind, data["kind"])]
    problems = list(_metadata(data))
    if not conforms(data, schema):
        problems += [_explain(error) for error in OAS30Validator(schema).iter_errors(data)]
    spec = data.get("spec")
    if isinstance(spec, Mapping):
        problems += _unknown_fields(spec, schema["properties"]["spec"], ("spec",))
        problems += _repeated_names(spec)
        problems += _no_time(spec)
    return sorted(dict.fromkeys(problems), key=lambda problem: [str(part) for part in problem.path])


def changed_immutable(old: Mapping[str, Any], new: Mapping[str, Any]) -> Problem | None:
    """The first immutable field that has changed."""
    for name in _IMMUTABLE[new["kind"]]:
        before, after = (data.get("spec", {}).get(name) for data in (old, new))
        if before != after:
            what = new["kind"].lower()
            message = f"cannot be changed from {before!r} to {after!r}; delete the {what} and create it again"
            return Problem(("spec", name), message)
    return None


def _metadata(data: Mapping[str, Any]) -> Iterator[Problem]:
    metadata = data.get("metadata")
    if not isinstance(metadata, Mapping) or not metadata.get("name"):
        yield Problem(("metadata", "name"), "is required")
        return
    for field in ("name", "namespace"):
        value = metadata.get(field)
        if value is not None and (not isinstance(value, str) or len(value) > 63 or not DNS_LABEL.fullmatch(value)):
            yield Problem(("metadata", field), f"{value!r} {_NAME_RULE}")


def _explain(error: ValidationError) -> Problem:
    path = tuple(error.absolute_path)
    rule, value = error.validator, error.instance
    if path == ("spec",) and value is None:
        return Problem(path, "is required")
    if rule == "required":
        missing = next(name for name in cast("list[str]", error.validator_value) if name not in cast(Any, value))
        return Problem((*path, missing), "is required")
    if rule == "oneOf":
        return Problem(path, "exactly one of bus and clusterBus is required")
    if rule == "anyOf":
        return Problem(path, "at least one of subscriber and replyTo is required")
    if rule == "pattern" and "T" in str(error.validator_value):
        return Problem(path, f"{value!r} is not an ISO 8601 duration; write for example PT30S or PT0.2S")
    if rule == "type":
        hint = (
            "; write it in quotes" if error.validator_value == "string" and not isinstance(value, dict | list) else ""
        )
        return Problem(path, f"{value!r} must be of type {error.validator_value}{hint}")
    if rule == "enum":
        return Problem(path, f"{value!r} must be one of {', '.join(map(str, cast(Any, error.validator_value)))}")
    return Problem(path, error.message)


def _unknown_fields(value: Any, schema: Mapping[str, Any], path: tuple[str | int, ...]) -> Iterator[Problem]:
    """Unknown fields. A cluster drops them silently, but a user who mistyped a field needs an error."""
    if isinstance(value, Mapping) and "properties" in schema:
        known = schema["properties"]
        for name, inner in value.items():
            if name in known:
                yield from _unknown_fields(inner, known[name], (*path, name))
                continue
            hint = did_you_mean(str(name), known, f"the fields are {', '.join(known)}")
            yield Problem((*path, name), f"unknown field; {hint}")
    elif isinstance(value, list) and "items" in schema:
        for index, inner in enumerate(value):
            yield from _unknown_fields(inner, schema["items"], (*path, index))


def _repeated_names(spec: Mapping[str, Any]) -> Iterator[Problem]:
    """Names that occur twice in a list, which `x-kubernetes-list-type: map` forbids."""
    lists: list[tuple[tuple[str, ...], Any]] = [(("spec", "arguments"), spec.get("arguments"))]
    parameters = spec.get("parameters")
    if isinstance(parameters, Mapping):
        lists += [(("spec", "parameters", scope), items) for scope, items in parameters.items()]
    for path, items in lists:
        seen: set[Any] = set()
        for index, item in enumerate(items if isinstance(items, list) else ()):
            name = item.get("name") if isinstance(item, Mapping) else None
            if isinstance(name, str) and name in seen:
                yield Problem((*path, index, "name"), f"{name!r} is given twice")
            seen.add(name if isinstance(name, str) else index)


def _no_time(spec: Mapping[str, Any]) -> Iterator[Problem]:
    """A timeout of zero, which would fail every attempt before it begins."""
    delivery = spec.get("delivery")
    timeout = delivery.get("timeout") if isinstance(delivery, Mapping) else None
    if isinstance(timeout, str) and timeout.startswith("P") and not re.search("[1-9]", timeout):
        yield Problem(
            ("spec", "delivery", "timeout"), f"{timeout!r} must be longer than zero; write for example PT30S or PT0.2S"
        )
