"""What is deleted is taken apart once, also when nobody ran at that moment; a name may be used again at once."""

from __future__ import annotations

from tests.e2e.cluster.stage import Stage, basics
from tests.support import manifest, subscriber, wait_for


def test_what_is_deleted_while_nobody_runs_is_taken_apart_afterwards(stage: Stage) -> None:
    stage.put(*basics("http://nobody.localhost:1/"), manifest("Channel", "other", bus="demo"))
    stage.put(manifest("Subscription", "two", channel="other", subscriber="http://nobody.localhost:1/"))
    host = stage.start()
    stage.wait_condition("Subscription", "one", "True")
    stage.wait_condition("Subscription", "two", "True")
    assert host.stop() == 0
    assert not stage.calls("unprovision")

    stage.api.kubectl("-n", stage.namespace, "delete", "channel", "orders", "--wait=false")
    stage.api.kubectl("-n", stage.namespace, "delete", "subscription", "two", "--wait=false")
    found = stage.get("Channel", "orders")
    assert found is not None
    assert found["metadata"]["deletionTimestamp"], "it stays, Terminating"
    assert stage.get("Subscription", "two") is not None

    host = stage.start()
    wait_for(lambda: stage.get("Channel", "orders") is None and stage.get("Subscription", "two") is None, 15)
    assert len(stage.calls("unprovision", "orders")) == 1
    assert len(stage.calls("unsubscribe", "two")) == 1
    services = stage.api.kubectl("-n", stage.namespace, "get", "services", "-o", "name")
    assert "orders-channel" not in services
    stage.wait_condition("Subscription", "one", "False", "ChannelNotFound")
    assert host.stop() == 0


def test_a_channel_deleted_and_created_again_within_a_second_works(stage: Stage) -> None:
    with subscriber() as server:
        stage.put(*basics(server.url()))
        host = stage.start()
        stage.wait_condition("Subscription", "one", "True")
        before = stage.get("Channel", "orders")
        stage.delete("Channel", "orders")
        wait_for(lambda: stage.get("Channel", "orders") is None, 10)
        stage.put(manifest("Channel", "orders", bus="demo"))
        stage.wait_condition("Channel", "orders", "True")
        after = stage.get("Channel", "orders")
        assert before is not None
        assert after is not None
        assert before["metadata"]["uid"] != after["metadata"]["uid"]
        wait_for(lambda: host.send("orders", b"again").status == 202)
        wait_for(lambda: b"again" in server.bodies())
        assert len(stage.calls("unprovision", "orders")) == 1
        assert len(stage.calls("provision", "orders")) == 2
        assert host.stop() == 0


def test_a_namespace_that_is_deleted_hangs_nothing(stage: Stage) -> None:
    stage.put(*basics("http://nobody.localhost:1/"))
    host = stage.start()
    stage.wait_condition("Subscription", "one", "True")
    stage.api.kubectl("delete", "namespace", stage.namespace, "--wait=false")
    # No controllers run here: this is what the namespace controller does, which deletes everything in it.
    for kind in ("subscriptions", "channels", "services", "buses"):
        stage.api.kubectl("-n", stage.namespace, "delete", kind, "--all", "--wait=false")
    wait_for(lambda: stage.get("Channel", "orders") is None and stage.get("Subscription", "one") is None, 20)
    assert len(stage.calls("unprovision", "orders")) == 1
    assert host.stop() == 0
