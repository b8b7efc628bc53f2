"""Writes to a cluster: each on the very version it was decided from, and none where the answer is known already."""

from __future__ import annotations

import json
import threading

import pytest

from bus_core.control_plane.cluster import ClusterClient
from bus_core.control_plane.sources.kubernetes.source import KubernetesSource
from bus_core.model.conditions import Condition
from bus_core.model.errors import ForbiddenError, TemporaryError
from bus_core.model.references import BusReference
from bus_core.model.resources import Channel, ChannelSpec, Metadata
from tests.cluster.fakes import Response, Script

CHANNEL = Channel(
    Metadata("orders", "shop", uid="u1", resource_version="7", generation=2), spec=ChannelSpec(bus="demo")
)
READY = [Condition("Ready", "True", "Provisioned")]


def source(*answers: Response | Exception) -> tuple[KubernetesSource, Script]:
    """One whose watch has brought the channel."""
    script = Script(*answers)
    made = KubernetesSource(ClusterClient(script), BusReference("demo", "shop"))
    made.on_resource("Channel", "ADDED", {**json.loads(written("7").data), "status": {}})
    return made, script


def written(version: str) -> Response:
    """The channel with `READY` in it, as the server answers."""
    conditions = [{"type": "Ready", "status": "True", "reason": "Provisioned", "message": ""}]
    return Response(
        200,
        {
            "kind": "Channel",
            "metadata": {
                "name": "orders", "namespace": "shop", "uid": "u1", "resourceVersion": version, "generation": 2
            },
            "spec": {"bus": "demo"},
            "status": {"observedGeneration": 2, "conditions": conditions},
        },
    )  # fmt: skip


def test_a_status_is_written_on_the_version_that_was_seen() -> None:
    made, script = source(written("8"))
    made.write_conditions(CHANNEL, READY)
    assert script.requests == [("PATCH", "/apis/channels.knative.dev/v1alpha1/namespaces/shop/channels/orders/status")]
    assert script.bodies[0]["metadata"] == {"uid": "u1", "resourceVersion": "7"}
    assert script.bodies[0]["status"]["observedGeneration"] == 2
    assert "provisionedParameters" not in script.bodies[0]["status"]


def test_the_parameters_that_were_provisioned_are_written_once_and_only_where_they_are_known() -> None:
    answer = json.loads(written("8").data)
    answer["status"]["provisionedParameters"] = stored = [{"name": "colour", "value": "red"}]
    made, script = source(Response(200, answer))
    for _ in range(2):
        made.write_conditions(CHANNEL, READY, provisioned_parameters={"colour": "red"})
    made.write_conditions(CHANNEL, READY)
    (body,) = script.bodies
    assert body["status"]["provisionedParameters"] == stored


def test_a_write_that_changes_nothing_is_none() -> None:
    made, script = source(written("8"))
    made.write_conditions(CHANNEL, READY)
    made.write_conditions(CHANNEL, READY)
    assert len(script.requests) == 1


def test_nothing_is_kept_of_what_ends_while_it_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    made, _ = source(written("8"))
    merge = ClusterClient.merge

    def overtaken(client: ClusterClient, path: str, body: object) -> object:
        answer = merge(client, path, body)  # type: ignore[arg-type]
        made.on_resource("Channel", "DELETED", answer)
        return answer

    monkeypatch.setattr(ClusterClient, "merge", overtaken)
    made.write_conditions(CHANNEL, READY)
    assert len(made._seen) == 0


def test_a_leader_that_was_overtaken_cannot_write() -> None:
    """It was held up after its check; meanwhile another leads and has written: the server refuses the older version."""
    made, _ = source(Response(409, {"reason": "Conflict", "message": "the object has been modified"}))
    with pytest.raises(TemporaryError, match="modified"):
        made.write_conditions(CHANNEL, READY)


def test_what_has_gone_needs_no_status() -> None:
    made, _ = source(Response(404, {"reason": "NotFound", "message": "not found"}))
    made.write_conditions(CHANNEL, READY)


def test_a_right_that_is_missing_is_told_apart() -> None:
    made, _ = source(Response(403, {"reason": "Forbidden", "message": "cannot patch channels/status"}))
    with pytest.raises(ForbiddenError, match="channels/status"):
        made.write_conditions(CHANNEL, READY)


def test_a_stop_waits_for_one_write_without_an_answer_and_begins_no_other() -> None:
    made, script = source(OSError("timed out"))
    stop = threading.Event()
    stop.set()
    made.run(lambda _: None, stop)
    script.requests.clear()
    with pytest.raises(TemporaryError):
        made.write_conditions(CHANNEL, READY)
    with pytest.raises(TemporaryError, match="stopping"):
        made.add_finalizer(CHANNEL, "bus-core/demo")
    assert len(script.requests) == 1
