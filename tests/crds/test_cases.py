"""The table of manifests, held against the folder's validation; and the definitions themselves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from bus_core.control_plane.crds import schemas, text
from bus_core.control_plane.sources.folder.manifests import read_file
from bus_core.model.resources import Channel, effective_delivery, from_object
from bus_core.model.resources import Subscription as SubscriptionResource

CASES: list[dict[str, Any]] = yaml.safe_load((Path(__file__).with_name("cases.yaml")).read_text())


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_the_table(case: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "case.yaml"
    path.write_text(case["object"])
    file = read_file(path)
    if case.get("good"):
        assert file.errors == ()
        assert from_object(file.documents[0].data).name
        return
    assert file.documents == ()
    assert [str(error) for error in file.errors if case["says"] in str(error)], file.errors
    assert case["line"] in [error.line for error in file.errors]


def test_the_definitions_describe_every_field() -> None:
    def check(schema: dict[str, Any], at: str) -> None:
        assert "description" in schema or at.endswith(("metadata", "[]")), f"{at} has no description"
        for name, inner in schema.get("properties", {}).items():
            check(inner, f"{at}.{name}")
        if "items" in schema:
            check(schema["items"], f"{at}[]")

    for kind, schema in schemas().items():
        check(schema, kind)


def test_the_definitions_are_what_a_cluster_takes() -> None:
    for definition in yaml.safe_load_all(text()):
        assert definition["apiVersion"] == "apiextensions.k8s.io/v1"
        version = definition["spec"]["versions"][0]
        assert version["subresources"] == {"status": {}}
        names = [column["name"] for column in version["additionalPrinterColumns"]]
        assert names[:2] == ["Ready", "Reason"]
        assert names[-1] == "Age"


def test_delivery_is_overridden_field_by_field() -> None:
    def resource(kind: str, **spec: Any) -> Any:
        return from_object({"kind": kind, "metadata": {"name": "a"}, "spec": spec})

    channel = resource("Channel", bus="b", delivery={"retry": 2, "timeout": "PT5S", "deadLetterSink": "c"})
    subscription = resource("Subscription", channel="a", subscriber="s", delivery={"retry": 0, "deadLetterSink": "s"})
    assert isinstance(channel, Channel)
    assert isinstance(subscription, SubscriptionResource)
    spec = effective_delivery(subscription, channel)
    assert (spec.retry, spec.timeout, spec.dead_letter_sink) == (0, 5.0, "s")
    assert (spec.backoff_policy, spec.backoff_delay, spec.retry_after_max) == ("exponential", 0.2, 60.0)
