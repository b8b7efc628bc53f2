"""The JSON Schema for editors gives the verdict of the folder's validation on every manifest that it can express."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from bus_core.control_plane.crds import editor_schema, schemas
from bus_core.control_plane.crds.validation import validate
from tests.support import QUICKSTART, ROOT
from tests.zygote import run_bus

CASES: list[dict[str, Any]] = yaml.safe_load((Path(__file__).with_name("cases.yaml")).read_text())
BEYOND = {"an argument given twice", "a letter that YAML 1.1 takes for a boolean, as kubectl does"}
"""Cases that JSON Schema cannot express: a list with one entry for each name, and the version of YAML."""

CHANNEL: dict[str, Any] = {
    "apiVersion": "channels.knative.dev/v1alpha1",
    "kind": "Channel",
    "metadata": {"name": "a"},
    "spec": {"bus": "b"},
}


def accepts(data: Any) -> bool:
    return jsonschema.Draft7Validator(editor_schema.editor_schema()).is_valid(data)


def test_it_is_a_schema_of_its_draft() -> None:
    jsonschema.Draft7Validator.check_schema(editor_schema.editor_schema())


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_the_table(case: dict[str, Any]) -> None:
    expected = bool(case.get("good")) or case["name"] in BEYOND
    assert accepts(yaml.safe_load(case["object"])) == expected


def test_the_cases_beyond_it_are_in_the_table() -> None:
    assert {case["name"] for case in CASES} >= BEYOND


@pytest.mark.parametrize(
    ("change", "good"),
    [
        ({}, True),
        ({"spec": {"bus": "b", "delivery": {"retry": 3}}}, True),
        ({"spec": {"buss": "b"}}, False),
        ({"spec": {"bus": "b", "bsu": "b"}}, False),
        ({"spec": {"bus": "b", "delivery": {"retries": 3}}}, False),
        ({"spec": {"bus": "b", "arguments": [{"name": "n", "value": "v", "x": 1}]}}, False),
        ({"spec": None}, False),
        ({"spec": {"bus": None}}, False),
        ({"spec": {"bus": "b", "delivery": {"timeout": "PT0S"}}}, False),
        ({"metadata": {"name": "a", "labels": {"x": "y"}, "uid": "u"}}, True),
        ({"metadata": {"name": "a", "namespace": None}}, True),
        ({"metadata": {"namespace": "a"}}, False),
        ({"metadata": {"name": "a" * 64}}, False),
        ({"status": {"observedGeneration": 1, "conditions": [{"type": "Ready", "status": "True"}]}}, True),
        ({"status": {"conditions": [{"type": "Ready", "status": "yes"}]}}, False),
    ],
)
def test_it_agrees_with_validation(change: dict[str, Any], good: bool) -> None:
    data = {**CHANNEL, **change}
    assert (validate(data) == []) == good
    assert accepts(data) == good


@pytest.mark.parametrize("change", [{"apiVersion": "v1"}, {"kind": "Chanel"}, {"kind": None}])
def test_another_kind_is_refused(change: dict[str, Any]) -> None:
    assert not accepts({**CHANNEL, **change})


def test_it_says_what_every_field_means() -> None:
    def check(schema: dict[str, Any], at: str) -> None:
        for name, inner in schema.get("properties", {}).items():
            assert "description" in inner, f"{at}.{name}"
            check(inner, f"{at}.{name}")
        if "items" in schema:
            check(schema["items"], f"{at}[]")

    definitions = editor_schema.editor_schema()["definitions"]
    assert set(definitions) == set(schemas())
    for kind, schema in definitions.items():
        assert set(schema["properties"]) == {"apiVersion", "kind", "metadata", "spec", "status"}
        for name, inner in schema["properties"].items():
            assert inner.get("description"), f"{kind}.{name}"
            check(inner, f"{kind}.{name}")


def test_nothing_of_a_cluster_is_left_in_it() -> None:
    assert "x-kubernetes" not in editor_schema.text()


def test_the_file_of_the_examples_is_what_the_command_prints() -> None:
    printed = run_bus("crds", "--format", "jsonschema")
    assert printed.returncode == 0
    made = (ROOT / "examples" / "manifests.schema.json").read_text()
    assert made == printed.stdout, "make it again: bus crds --format jsonschema > examples/manifests.schema.json"


def test_the_examples_name_it_and_are_accepted() -> None:
    paths = sorted(QUICKSTART.glob("*.yaml"))
    assert len(paths) == 3
    for path in paths:
        first = path.read_text().splitlines()[0]
        assert first.startswith("# yaml-language-server: $schema=")
        assert (path.parent / first.partition("=")[2]).samefile(ROOT / "examples" / "manifests.schema.json")
        for data in yaml.safe_load_all(path.read_text()):
            assert accepts(data)


def test_a_schema_is_not_for_kubectl_delete() -> None:
    result = run_bus("crds", "--format", "jsonschema", "--delete-all-channels")
    assert result.returncode == 2
    assert "remove --format jsonschema" in result.stderr
