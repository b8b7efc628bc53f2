"""`receive` gets the parameters that were provisioned: in every worker, through the status, and after a restart."""

from __future__ import annotations

from tests.e2e.cluster.stage import Stage
from tests.packages import make_package
from tests.support import BusProcess, manifest

ECHO = '''
"""A driver that answers with the parameters of a channel, and refuses the colour blue."""
from bus_core import InvalidMessageError, Parameter, PermanentError, hookimpl


class EchoBus:
    api = 1
    parameters = (Parameter("colour", default="red"),)

    def __init__(self, context):
        pass

    @hookimpl
    def provision(self, channel, parameters):
        if parameters["colour"] == "blue":
            raise PermanentError("there is no blue")

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
    def receive(self, channel, message, parameters):
        raise InvalidMessageError(f"it is {parameters['colour']}")
'''


def colours(host: BusProcess) -> set[str]:
    """What each of many events was taken with: enough for every worker to take one."""
    return {host.send("orders").text.strip().rpartition(" ")[2] for _ in range(30)}


def test_a_refused_edit_does_not_reach_the_events_of_any_worker(stage: Stage) -> None:
    make_package(stage.site, "echo-bus", ECHO, driver="echo", value="echo_bus:EchoBus")
    stage.put(manifest("Bus", "demo"), manifest("Channel", "orders", bus="demo"))
    host = stage.start("--workers", "3", driver="echo")
    stage.wait_condition("Channel", "orders", "True")
    host.wait_served("orders")
    assert colours(host) == {"red"}
    stage.merge("Channel", "orders", {"spec": {"arguments": [{"name": "colour", "value": "blue"}]}})
    stage.wait_condition("Channel", "orders", "False", "PermanentError", "there is no blue")
    assert colours(host) == {"red"}
    found = stage.get("Channel", "orders")
    assert found is not None
    assert found["status"]["provisionedParameters"] == [{"name": "colour", "value": "red"}]
    assert host.stop() == 0

    again = stage.start("--workers", "3", driver="echo")
    again.wait_served("orders")
    assert colours(again) == {"red"}
    assert stage.condition("Channel", "orders", "Provisioned")["reason"] == "UpdateFailed"
    stage.merge("Channel", "orders", {"spec": {"arguments": [{"name": "colour", "value": "green"}]}})
    stage.wait_condition("Channel", "orders", "True")
    assert again.stop() == 0
