"""The run config: which bus, on which driver, with resources from where; and the sentences where that is not clear."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest
import yaml

from bus_core.control_plane.leadership.file_lock import FileLock
from bus_core.control_plane.leadership.lease import LeaseLock
from bus_core.control_plane.sources.folder.source import ManifestSource
from bus_core.control_plane.sources.kubernetes import KubernetesSource
from bus_core.host.run_config import FromCluster, FromFolder, RunConfig, StoppedError, make_run_config
from bus_core.model.errors import ConfigurationError
from bus_core.model.references import BusReference
from bus_core.model.resources import DISPATCHER, PROVISIONER
from bus_core.settings.resolve import load_settings
from tests.support import manifest, wait_for


class Manifests:
    """A folder of manifests, and the run config that follows from it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "manifests"
        self.folder.mkdir()
        self.state = folder / "state"

    def put(self, *objects: dict[str, Any]) -> Manifests:
        (self.folder / "all.yaml").write_text(yaml.safe_dump_all(objects))
        return self

    def make(self, assignments: dict[str, dict[str, str]] | None = None, **flags: Any) -> RunConfig:
        given = {"manifests": self.folder, "state_dir": self.state} | flags
        return make_run_config(load_settings(given), assignments)

    def refusal(self, assignments: dict[str, dict[str, str]] | None = None, **flags: Any) -> str:
        with pytest.raises(ConfigurationError) as raised:
            self.make(assignments, **flags)
        return str(raised.value)


@pytest.fixture
def manifests(tmp_path: Path) -> Manifests:
    return Manifests(tmp_path)


def test_the_one_bus_of_a_folder_is_meant_and_names_its_driver(manifests: Manifests) -> None:
    config = manifests.put(manifest("Bus", "demo", driver="stub")).make()
    assert (config.bus, config.driver.name, config.driver_settings) == (BusReference("demo", "default"), "stub", None)
    assert config.roles == (PROVISIONER, DISPATCHER)
    assert config.origin == FromFolder(manifests.folder, manifests.state, allow_empty=False)
    assert isinstance(config.source(), ManifestSource)
    assert isinstance(config.leadership(), FileLock)
    assert str(config.origin) == f"{manifests.folder} (state in {manifests.state})"


@pytest.mark.parametrize(
    ("role", "roles"),
    [("all", (PROVISIONER, DISPATCHER)), ("provisioner", (PROVISIONER,)), ("dispatcher", (DISPATCHER,))],
)
def test_the_role_says_which_roles(manifests: Manifests, role: str, roles: tuple[str, ...]) -> None:
    assert manifests.put(manifest("Bus", "demo", driver="stub")).make(role=role).roles == roles


def test_a_flag_names_the_driver_where_the_bus_does_not(manifests: Manifests) -> None:
    manifests.put(manifest("Bus", "demo"))
    config = manifests.make({"kafka": {"brokers": "a:1", "config.linger.ms": "5"}}, driver="kafka")
    assert config.driver.name == "kafka"
    assert config.driver_settings.brokers == "a:1"
    assert config.driver_settings.config == {"linger.ms": "5"}


@pytest.mark.parametrize(("name", "kind"), [("default/other", "Bus"), ("other", "ClusterBus")])
def test_a_bus_that_no_manifest_has_is_made_in_memory(manifests: Manifests, name: str, kind: str) -> None:
    config = manifests.put(manifest("Channel", "orders", bus="other")).make(bus=name, driver="stub")
    assert isinstance(config.origin, FromFolder)
    (made,) = config.origin.extra
    assert (made["kind"], made["metadata"]["name"], made["spec"]) == (kind, "other", {"driver": "stub"})
    assert str(config.bus) == name


def test_a_cluster_bus_is_not_the_bus_of_the_same_name(manifests: Manifests) -> None:
    manifests.put(manifest("Bus", "demo", driver="stub"), manifest("ClusterBus", "demo", driver="stub"))
    assert manifests.make(bus="demo").bus == BusReference("demo")
    assert manifests.make(bus="default/demo").bus == BusReference("demo", "default")


@pytest.mark.parametrize(
    ("objects", "flags", "says"),
    [
        ([], {"bus": "default/demo"}, "there is no bus default/demo in"),
        ([], {"bus": "demo"}, "did you mean default/demo?"),
        ([], {}, ": none)"),
        ([manifest("Bus", "a"), manifest("Bus", "b")], {}, "default/a, default/b)"),
        (
            [manifest("Bus", "demo")],
            {},
            "the bus default/demo does not name a driver: set spec.driver, or give --driver NAME",
        ),
        ([manifest("Bus", "demo")], {"driver": "nowhere"}, "driver 'nowhere' is not installed"),
        ([manifest("Bus", "demo", driver="stub")], {"driver": "kafka"}, "has driver 'stub', but --driver is 'kafka'"),
        ([manifest("Bus", "demo", drivr="stub")], {}, "which bus? "),
        ([manifest("Bus", "demo", drivr="stub")], {"bus": "default/demo"}, "no bus default/demo can be read: "),
        ([], {"bus": "a/b/c"}, "'a/b/c' does not name a bus"),
        ([], {"bus": "x" * 64}, "names are DNS labels of at most 63 characters"),
        ([], {"master": "https://127.0.0.1:1"}, "name two sources; give one"),
    ],
)
def test_what_a_folder_does_not_say_is_one_sentence(
    manifests: Manifests, objects: list[dict[str, Any]], flags: dict[str, Any], says: str
) -> None:
    told = manifests.put(*objects).refusal(**flags)
    assert says in told
    assert "\n" not in told


def test_settings_of_another_driver_are_refused(manifests: Manifests, tmp_path: Path) -> None:
    manifests.put(manifest("Bus", "demo", driver="stub"))
    assert manifests.refusal({"kafka": {"brokers": "a:1"}, "x": {"a": "b"}}) == (
        "--set names the driver kafka, x, but the bus default/demo runs on stub"
    )
    path = tmp_path / "settings.yaml"
    path.write_text("kafka: {brokers: 'a:1'}\nkafak: {}\n")
    assert manifests.refusal(config=path).startswith(f"{path}:2: kafak: there is no such setting, and no such driver")


def test_a_state_directory_that_cannot_be_used_is_refused_before_the_start(manifests: Manifests) -> None:
    manifests.put(manifest("Bus", "demo", driver="stub"))
    manifests.state.write_text("a file")
    assert str(manifests.state) in manifests.refusal()


@pytest.mark.parametrize(
    ("bind", "admin_bind", "one"),
    [
        ("127.0.0.1:18080", "127.0.0.2:18080", False),
        ("127.0.0.1:18080", "127.0.0.1:18081", False),
        ("127.0.0.1:0", "127.0.0.1:0", False),
        ("127.0.0.1:18080", "[::1]:18080", False),
        ("0.0.0.0:18080", "[::1]:18080", False),
        ("127.0.0.1:18080", "127.0.0.1:18080", True),
        ("0.0.0.0:18080", "127.0.0.2:18080", True),
        ("127.0.0.2:18080", "0.0.0.0:18080", True),
        ("[::]:18080", "[::1]:18080", True),
    ],
)
def test_two_addresses_are_told_apart_by_host_and_port(
    manifests: Manifests, bind: str, admin_bind: str, one: bool
) -> None:
    manifests.put(manifest("Bus", "demo", driver="stub"))
    flags: dict[str, Any] = {"bind": bind, "admin_bind": admin_bind}
    if not one:
        manifests.make(**flags)
        return
    told = manifests.refusal(**flags)
    assert told == f"--bind {bind} and --admin-bind {admin_bind} are the same address: give each its own port"
    manifests.make(**flags, role="provisioner")  # which listens on one address only


class ApiServer(BaseHTTPRequestHandler):
    """Answers each read of a Bus with what `bus` holds; 404 for None."""

    bus: ClassVar[dict[str, Any] | None] = None
    asked: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.asked.append(self.path)
        body = json.dumps(self.bus or {"kind": "Status", "message": "not found"}).encode()
        self.send_response(200 if self.bus else 404)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def api_server() -> Iterator[str]:
    ApiServer.bus, ApiServer.asked[:] = None, []
    server = ThreadingHTTPServer(("127.0.0.1", 0), ApiServer)
    thread = threading.Thread(target=server.serve_forever, name="api-server")
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_cluster_needs_no_answer_where_a_flag_names_the_driver() -> None:
    flags = {"master": "https://127.0.0.1:1", "bus": "shop/demo", "driver": "stub", "lease_duration": 7.0}
    config = make_run_config(load_settings(flags))
    assert isinstance(config.origin, FromCluster)
    assert (config.origin.namespace, config.origin.lease_duration) == ("shop", 7.0)
    assert (config.origin.service.name, config.origin.service.namespace) == ("demo-bus", "shop")
    assert isinstance(config.source(), KubernetesSource)
    assert isinstance(config.leadership(), LeaseLock)
    assert str(config.origin) == "https://127.0.0.1:1"


@pytest.mark.parametrize(
    ("service", "bus", "expected"),
    [
        ("front", "shop/demo", ("front", "shop")),
        ("edge/front", "shop/demo", ("front", "edge")),
        ("", "demo", ("demo-bus", "default")),
    ],
)
def test_the_service_of_the_bus_may_be_named(service: str, bus: str, expected: tuple[str, str]) -> None:
    flags = {"master": "https://127.0.0.1:1", "bus": bus, "driver": "stub", "service": service}
    origin = make_run_config(load_settings(flags)).origin
    assert isinstance(origin, FromCluster)
    assert (origin.service.name, origin.service.namespace) == expected


def test_the_bus_in_the_cluster_names_the_driver(api_server: str) -> None:
    ApiServer.bus = manifest("Bus", "demo", driver="stub")
    config = make_run_config(load_settings({"master": api_server, "bus": "default/demo"}))
    assert config.driver.name == "stub"
    assert ApiServer.asked == ["/apis/channels.knative.dev/v1alpha1/namespaces/default/buses/demo"]


def test_a_bus_in_the_cluster_that_names_no_driver_is_refused(api_server: str) -> None:
    ApiServer.bus = manifest("Bus", "demo")
    with pytest.raises(ConfigurationError, match="the bus default/demo does not name a driver"):
        make_run_config(load_settings({"master": api_server, "bus": "default/demo"}))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_wait_for_a_bus_and_the_handlers_come_back(api_server: str, number: int) -> None:
    before = signal.getsignal(number)

    def interrupt() -> None:
        wait_for(lambda: ApiServer.asked)
        os.kill(os.getpid(), number)

    thread = threading.Thread(target=interrupt, name="interrupt")
    thread.start()
    with pytest.raises(StoppedError):
        make_run_config(load_settings({"master": api_server, "bus": "default/demo"}))
    thread.join()
    assert signal.getsignal(number) is before


def test_without_a_folder_and_a_cluster_it_asks_for_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(ConfigurationError, match="where are the resources"):
        make_run_config(load_settings({"bus": "default/demo"}))
