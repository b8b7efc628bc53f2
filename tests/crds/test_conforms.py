"""The quick look at objects says yes only where the validator has nothing to say."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openapi_schema_validator import OAS30Validator

from bus_core.control_plane.crds import schemas
from bus_core.control_plane.crds.conforms import conforms
from bus_core.model.resources import Kind
from tests.support import manifest

SCALARS = st.sampled_from([None, True, 0, 1, -1, 101, 1.0, "", "a", "x" * 64, "x" * 5000, "PT1S", "1S", "linear", "\n"])
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["name", "value", "x"]), inner),
    max_leaves=4,
)
FIELDS = ["bus", "clusterBus", "channel", "subscriber", "replyTo", "driver", "arguments", "delivery", "parameters"]
DELIVERY = ["retry", "backoffPolicy", "backoffDelay", "timeout", "retryAfterMax", "deadLetterSink"]
SPECS = st.dictionaries(
    st.sampled_from(FIELDS), VALUES | st.dictionaries(st.sampled_from([*DELIVERY, "channel"]), VALUES, max_size=3)
)


@settings(max_examples=400, deadline=None)
@given(kind=st.sampled_from(["Bus", "ClusterBus", "Channel", "Subscription"]), spec=SPECS | VALUES)
def test_it_never_takes_what_the_validator_refuses(kind: Kind, spec: Any) -> None:
    found = manifest(kind, "a") | {"spec": spec}
    if conforms(found, schemas()[kind]):
        assert not list(OAS30Validator(schemas()[kind]).iter_errors(found))


@pytest.mark.parametrize(
    "found",
    [
        manifest("Bus", "b", driver="stub", parameters={"channel": [{"name": "a", "default": "1"}]}),
        manifest("ClusterBus", "b"),
        manifest("Channel", "c", bus="b", arguments=[{"name": "a", "value": "1"}], delivery={"timeout": "PT1S"}),
        manifest("Subscription", "s", channel="c", subscriber="x", delivery={"retry": 3, "backoffPolicy": "linear"}),
    ],
    ids=lambda found: found["kind"],
)
def test_it_knows_the_usual_objects_of_each_kind(found: dict[str, Any]) -> None:
    assert conforms(found, schemas()[found["kind"]])
