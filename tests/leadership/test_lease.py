"""The Lease: taken, kept, lost and given back, judged by the local clock alone."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Mapping
from typing import Any

import pytest

from bus_core.control_plane.cluster import ClusterClient
from bus_core.control_plane.leadership.lease import RELEASE_WAIT, LeaseLock
from bus_core.model.references import BusReference
from tests.cluster.fakes import Response
from tests.support import wait_for

BUS = BusReference("demo", "shop")


class Store:
    """One Lease as an API server keeps it: every write is on a version."""

    def __init__(self) -> None:
        self.lease: dict[str, Any] | None = None
        self.down = False
        self.hang = threading.Lock()
        self.waiting = 0
        self._lock = threading.Lock()

    def __call__(
        self, method: str, path: str, headers: Mapping[str, str], body: bytes | None, connect: float, read: float
    ) -> Any:
        self.waiting += 1
        with self.hang:
            self.waiting -= 1
        with self._lock:
            if self.down:
                raise OSError("down")
            if method == "GET":
                return Response(200, self.lease) if self.lease else Response(404, {"reason": "NotFound"})
            wanted = json.loads(body or b"{}")
            version = self.lease["metadata"]["resourceVersion"] if self.lease else ""
            if wanted["metadata"].get("resourceVersion", "") != version:
                return Response(409, {"reason": "Conflict"})
            wanted["metadata"]["resourceVersion"] = str(int(version or 0) + 1)
            self.lease = wanted
            return Response(200, wanted)

    @property
    def holder(self) -> str:
        return str(self.lease["spec"]["holderIdentity"]) if self.lease else ""


def compete(store: Store, name: str) -> tuple[LeaseLock, list[str]]:
    gained: list[str] = []
    lock = LeaseLock(ClusterClient(store), "shop", duration=1, identity=name)
    lock.start(BUS, ["provisioner"], gained.append)
    return lock, gained


def test_one_leads_and_the_next_follows_at_once_when_it_is_given_back() -> None:
    store = Store()
    one, gained = compete(store, "one")
    wait_for(lambda: one.held("provisioner"))
    two, _ = compete(store, "two")
    assert gained == ["provisioner"]
    assert not one.held("dispatcher")
    threading.Event().wait(1.5)  # longer than the record lasts unrenewed
    assert one.held("provisioner")
    assert not two.held("provisioner")
    one.release()
    assert not one.held("provisioner")
    wait_for(lambda: two.held("provisioner"), 0.8)
    two.release()
    assert store.holder == ""


def test_a_server_that_hangs_holds_up_no_release() -> None:
    store = Store()
    one, _ = compete(store, "one")
    wait_for(lambda: one.held("provisioner"))
    with store.hang:
        wait_for(lambda: store.waiting)
        began = time.monotonic()
        one.release()
        assert time.monotonic() - began < RELEASE_WAIT + 0.5
        assert not one.held("provisioner")


def test_without_renewal_the_leader_stops_before_another_may_start() -> None:
    store = Store()
    one, _ = compete(store, "one")
    wait_for(lambda: one.held("provisioner"))
    store.down = True
    wait_for(lambda: not one.held("provisioner"), 1.5)
    assert "down" in one.problems()[0]
    store.down = False
    wait_for(lambda: one.held("provisioner"))
    assert one.problems() == []
    one.release()


def test_a_leader_that_is_gone_is_followed_when_its_record_has_not_moved_for_its_duration() -> None:
    store = Store()
    store.lease = {
        "metadata": {"resourceVersion": "5", "name": "bus-demo-provisioner"},
        "spec": {"holderIdentity": "gone", "leaseDurationSeconds": 1, "renewTime": "2099-01-01T00:00:00.000000Z"},
    }
    two, _ = compete(store, "two")
    threading.Event().wait(0.5)  # half of it
    assert not two.held("provisioner")
    wait_for(lambda: two.held("provisioner"), 2)
    assert store.lease["spec"]["leaseTransitions"] == 1
    two.release()


@pytest.mark.parametrize(
    "error", [OSError("no file"), ValueError("not a Lease"), KeyError("metadata")], ids=["os", "value", "key"]
)
def test_an_error_of_any_kind_is_a_problem_and_ends_nothing(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    """A credential plug-in, an answer that is no Lease, a full disk: the next try may work."""
    store = Store()
    fails = threading.Event()
    fails.set()

    class Client(ClusterClient):
        def get(self, path: str, *, read: float = 3.0, **query: Any) -> dict[str, Any]:
            if fails.is_set():
                raise error
            return super().get(path, read=read, **query)

    client = Client(store)
    lock = LeaseLock(client, "shop", duration=1, identity="one")
    lock.start(BUS, ["provisioner"], lambda role: None)
    wait_for(lock.problems)
    assert type(error).__name__ in lock.problems()[0]
    threading.Event().wait(0.3)  # some tries more
    assert len([record for record in caplog.records if record.exc_info]) == 1, "logged once, with its traceback"
    fails.clear()
    wait_for(lambda: lock.held("provisioner"))
    assert lock.problems() == []
    lock.release()


def test_an_answer_that_is_no_lease_is_a_problem_and_ends_nothing() -> None:
    store = Store()
    store.lease = {"metadata": {"resourceVersion": "1"}, "spec": "nonsense"}
    lock, _ = compete(store, "one")
    wait_for(lock.problems)
    store.lease = None
    wait_for(lambda: lock.held("provisioner"))
    lock.release()


def test_an_unwell_server_is_asked_for_one_lease_a_step_and_each_in_its_turn() -> None:
    store = Store()
    paths: list[str] = []

    def unwell(method: str, path: str, *rest: Any) -> Any:
        paths.append(path.rpartition("-")[2])
        return Response(500, {"message": "unwell"})

    lock = LeaseLock(ClusterClient(unwell), "shop", duration=1, identity="one")  # type: ignore[arg-type]
    lock.start(BUS, ["provisioner", "dispatcher"], lambda role: None)
    wait_for(lambda: len(paths) >= 6)
    assert paths[:6] == ["provisioner", "dispatcher"] * 3
    began, before = time.monotonic(), len(paths)
    threading.Event().wait(1.5)  # the length of the look
    assert len(paths) - before <= (time.monotonic() - began) / 0.1 + 1
    assert len(lock.problems()) == 1, "one sentence, not one for each role"
    assert store.lease is None
    lock.release()


def test_a_right_that_lacks_for_one_role_keeps_the_other_led() -> None:
    store = Store()

    def half(method: str, path: str, headers: Any, body: Any, connect: float, read: float) -> Any:
        if "dispatcher" in path:
            return Response(403, {"message": "leases is forbidden", "reason": "Forbidden"})
        return store(method, path, headers, body, connect, read)

    lock = LeaseLock(ClusterClient(half), "shop", duration=1, identity="one")
    lock.start(BUS, ["dispatcher", "provisioner"], lambda role: None)
    wait_for(lambda: lock.held("provisioner"))
    threading.Event().wait(1.0)  # longer than a Lease is held without renewal
    assert lock.held("provisioner")
    assert not lock.held("dispatcher")
    lock.release()
