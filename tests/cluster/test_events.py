"""Events: one for what is said once, a series for what is repeated, and never many."""

from __future__ import annotations

from bus_core.control_plane.cluster import ClusterClient
from bus_core.control_plane.sources.kubernetes.events import BURST, REPEAT, EventRecorder
from bus_core.model.resources import Channel, ChannelSpec, Metadata
from tests.cluster.fakes import Response, Script
from tests.support import wait_for

CHANNEL = Channel(Metadata("orders", "shop", uid="u1"), spec=ChannelSpec(bus="demo"))


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_repeated_event_is_counted_and_different_ones_are_few() -> None:
    script, clock = Script(*[Response(201, {})] * 100), Clock()
    recorder = EventRecorder(ClusterClient(script), "bus-core", clock=clock)
    recorder.start()
    for _ in range(50):
        recorder.record(CHANNEL, "ErrResourceSync", "the broker is tired", warning=True)
    wait_for(lambda: len(script.requests) == 1)
    first = script.bodies[0]
    assert first["regarding"] == {
        "apiVersion": "channels.knative.dev/v1alpha1", "kind": "Channel", "name": "orders", "namespace": "shop",
        "uid": "u1", "resourceVersion": "",
    }  # fmt: skip
    assert (first["type"], first["reason"]) == ("Warning", "ErrResourceSync")

    clock.now = REPEAT
    recorder.record(CHANNEL, "ErrResourceSync", "the broker is tired", warning=True)
    wait_for(lambda: len(script.requests) == 2)
    assert script.requests[1] == ("PATCH", f"{script.requests[0][1]}/{first['metadata']['name']}")
    assert script.bodies[1]["series"]["count"] == 51

    for number in range(200):
        recorder.record(CHANNEL, "ErrResourceSync", f"at {number}", warning=True)
    recorder.stop()
    assert len(script.requests) <= 2 + BURST


def test_a_long_note_is_cut_and_a_refusal_is_nobodys_trouble() -> None:
    script = Script(Response(403, {"message": "events is forbidden"}))
    recorder = EventRecorder(ClusterClient(script), "bus-core")
    recorder.start()
    recorder.record(CHANNEL, "Synced", "x" * 5000)
    recorder.stop()
    assert len(script.bodies[0]["note"]) == 1024
