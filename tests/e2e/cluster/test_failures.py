"""What goes wrong is said where its owner looks, once, and is cured by editing the resource."""

from __future__ import annotations

from tests.e2e.cluster.stage import Stage, basics
from tests.packages import make_package
from tests.support import Answer, manifest, subscriber, wait_for

MOODY = '''
"""A driver that fails as its parameters ask."""
from bus_core import Parameter, PermanentError, TemporaryError, hookimpl


class MoodyBus:
    api = 1
    parameters = (Parameter("mood", default="good"), Parameter("needed", scope="subscription"))

    def __init__(self, context):
        self._publish = context.publish

    @hookimpl
    def provision(self, channel, parameters):
        if parameters["mood"] == "temporary":
            raise TemporaryError("the broker is tired", retry_after=0.2)
        if parameters["mood"] == "permanent":
            raise PermanentError("the broker never will")

    @hookimpl
    def unprovision(self, channel):
        pass

    @hookimpl
    def subscribe(self, subscription):
        pass

    @hookimpl
    def unsubscribe(self, subscription):
        pass

    @hookimpl
    def receive(self, channel, message):
        self._publish(channel, message)
'''


def argument(name: str, value: str) -> dict[str, object]:
    return {"spec": {"arguments": [{"name": name, "value": value}]}}


def test_each_failure_is_a_condition_and_one_event_and_is_cured_by_an_edit(stage: Stage) -> None:
    make_package(stage.site, "moody-bus", MOODY, driver="moody", value="moody_bus:MoodyBus")
    down = True
    with subscriber(lambda _: Answer(503 if down else 204)) as server:
        spec = {"subscriber": server.url(), "delivery": {"retry": 1, "backoffDelay": "PT0.05S"}}
        stage.put(
            manifest("Bus", "demo"),
            manifest("Channel", "orders", bus="demo", arguments=[{"name": "mood", "value": "temporary"}]),
            manifest("Subscription", "one", channel="orders", **spec),
        )
        host = stage.start(driver="moody")

        stage.wait_condition("Channel", "orders", "False", "TemporaryError", "the broker is tired")
        stage.merge("Channel", "orders", argument("mood", "permanent"))
        stage.wait_condition("Channel", "orders", "False", "PermanentError", "the broker never will")
        stage.merge("Channel", "orders", argument("colour", "red"))
        stage.wait_condition("Channel", "orders", "True", "neither driver nor bus declares them: colour")
        stage.merge("Channel", "orders", {"spec": {"arguments": []}})
        stage.wait_condition("Channel", "orders", "True", "Provisioned")

        stage.wait_condition("Subscription", "one", "False", "MissingParameter", "needed")
        stage.merge("Subscription", "one", argument("needed", "yes"))
        stage.wait_condition("Subscription", "one", "True")

        assert host.send("orders").status == 202
        stage.wait_condition("Subscription", "one", "False", "SubscriberFailing", "503")
        down = False
        assert host.send("orders").status == 202
        stage.wait_condition("Subscription", "one", "True")

        def notes(name: str) -> list[str]:
            return sorted(str(event["note"]) for event in stage.events(name, "ErrResourceSync"))

        wait_for(lambda: len(notes("orders")) == 3 and len(notes("one")) == 2, what="the Events are written")
        assert "neither driver nor bus declares them: colour" in "".join(notes("orders"))
        assert "the broker is tired" in "".join(notes("orders"))
        assert "the broker never will" in "".join(notes("orders"))
        assert "needed" in "".join(notes("one"))
        assert "503" in "".join(notes("one"))
        assert host.stop() == 0


def test_a_bus_of_another_driver_is_not_taken(stage: Stage) -> None:
    stage.put(manifest("Bus", "demo", driver="kafka"))
    host = stage.start(driver="stub", ready=False)
    stage.wait_condition("Bus", "demo", "False", "PermanentError", "'kafka'", "'stub'")
    assert not host.is_ready()
    assert host.stop() == 0


def test_a_service_of_somebody_else_is_left_alone(stage: Stage) -> None:
    path = f"/api/v1/namespaces/{stage.namespace}/services"
    theirs = {"metadata": {"name": "orders-channel"}, "spec": {"ports": [{"port": 80}]}}
    stage.api.ask("POST", path, theirs)
    stage.put(*basics("http://nobody.localhost:1/"))
    host = stage.start()
    stage.wait_condition("Channel", "orders", "False", "ServiceConflict")
    assert "externalName" not in stage.api.ask("GET", f"{path}/orders-channel")["spec"]
    stage.api.ask("DELETE", f"{path}/orders-channel")
    stage.merge("Channel", "orders", {"metadata": {"labels": {"look": "again"}}})
    stage.wait_condition("Channel", "orders", "True")
    assert host.stop() == 0


def test_a_service_that_is_deleted_comes_back(stage: Stage) -> None:
    stage.put(*basics("http://nobody.localhost:1/"))
    host = stage.start()
    stage.wait_condition("Channel", "orders", "True")
    path = f"/api/v1/namespaces/{stage.namespace}/services/orders-channel"
    uid = stage.api.ask("GET", path)["metadata"]["uid"]
    stage.api.ask("DELETE", path)
    wait_for(lambda: "service/orders-channel" in stage.api.kubectl("-n", stage.namespace, "get", "svc", "-o", "name"))
    assert stage.api.ask("GET", path)["metadata"]["uid"] != uid
    stage.api.ask("DELETE", f"/api/v1/namespaces/{stage.namespace}/services/demo-bus")
    stage.wait_condition("Channel", "orders", "False", "ServiceNotFound", "demo-bus")
    assert host.send("orders").status == 202, "what is not reachable by that name may be by another"
    assert host.stop() == 0
