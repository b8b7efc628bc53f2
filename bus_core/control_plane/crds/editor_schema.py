"""Control plane, CRDs: the manifests' schema as JSON Schema draft-07 for editors (yaml-language-server).

It is made from the CustomResourceDefinitions, so it accepts and refuses the same manifests as `bus validate`, with
three exceptions. JSON Schema cannot express that a field must not change, and that a list must not contain a name
twice. And the schema refuses a file that also contains resources of other API groups.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from bus_core.control_plane.crds import schemas
from bus_core.control_plane.crds.validation import DNS_LABEL
from bus_core.model.resources import API_VERSION, Kind

DRAFT = "http://json-schema.org/draft-07/schema#"

_CEL_MATCH = re.compile(r"self\.matches\('([^']*)'\)")
_COPIED = frozenset(
    [
        *("type", "description", "enum", "format", "required"),
        *("minimum", "maximum", "minLength", "maxLength", "pattern", "maxItems"),
    ]
)


def text() -> str:
    """The schema as JSON text with a line feed at its end."""
    return json.dumps(editor_schema(), indent=2) + "\n"


def editor_schema() -> dict[str, Any]:
    """One schema for all four kinds; `kind` selects the part that applies."""
    kinds = list(schemas())
    return {
        "$schema": DRAFT,
        "title": f"Manifests of {API_VERSION}",
        "type": "object",
        "required": ["apiVersion", "kind", "metadata"],
        "properties": {
            "apiVersion": {"const": API_VERSION},
            "kind": {"enum": kinds, "description": "Bus, ClusterBus, Channel or Subscription."},
        },
        "allOf": [
            {
                "if": {"required": ["kind"], "properties": {"kind": {"const": kind}}},
                "then": {"$ref": f"#/definitions/{kind}"},
            }
            for kind in kinds
        ],
        "definitions": {kind: _definition(kind, schema) for kind, schema in schemas().items()},
    }


def _definition(kind: Kind, schema: Mapping[str, Any]) -> dict[str, Any]:
    made = _translated(schema, closed=False)
    made["properties"] |= {
        "apiVersion": {"const": API_VERSION, "description": "The API group and version."},
        "kind": {"const": kind, "description": schema["description"]},
        "metadata": _metadata(),
        "spec": _translated(schema["properties"]["spec"], closed=True),
    }
    return made


def _metadata() -> dict[str, Any]:
    label = {"type": "string", "maxLength": 63, "pattern": f"^{DNS_LABEL.pattern}$"}
    return {
        "description": "Name and namespace, and your labels and annotations.",
        "type": "object",
        "required": ["name"],
        "properties": {
            "name": {"description": "The name, a DNS label (RFC 1123).", **label},
            "namespace": {"description": "The namespace, a DNS label (RFC 1123).", **label, "type": ["string", "null"]},
        },
    }


def _translated(schema: Mapping[str, Any], *, closed: bool) -> dict[str, Any]:
    """Convert the OpenAPI v3 schema of a CustomResourceDefinition. `closed` refuses unknown fields."""
    made: dict[str, Any] = {key: value for key, value in schema.items() if key in _COPIED}
    if schema.get("nullable"):
        made["type"] = [made["type"], "null"]
    if "properties" in schema:
        made["properties"] = {name: _translated(inner, closed=closed) for name, inner in schema["properties"].items()}
        if closed:
            made["additionalProperties"] = False
    if "items" in schema:
        made["items"] = _translated(schema["items"], closed=closed)
    for key in ("oneOf", "anyOf"):
        if key in schema:
            made[key] = [_translated(inner, closed=False) for inner in schema[key]]
    rules = [_CEL_MATCH.fullmatch(item["rule"]) for item in schema.get("x-kubernetes-validations", ())]
    patterns = [{"pattern": found[1]} for found in rules if found]
    if patterns:
        made["allOf"] = patterns
    return made
