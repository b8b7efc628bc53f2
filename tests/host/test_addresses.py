"""The two ports of a bus, as a real process: they may have one number on two addresses."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from tests.support import QUICKSTART, BusProcess, free_port, request


def test_both_ports_may_have_one_number_on_two_addresses(tmp_path: Path) -> None:
    port = free_port()
    events, admin = f"127.0.0.1:{port}", f"127.0.0.2:{port}"
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.2", port))
        except OSError:
            pytest.skip("this machine has no address 127.0.0.2")
    process = BusProcess(QUICKSTART, tmp_path / "state", "--driver", "stub", "--bind", events, "--admin-bind", admin)
    process.events, process.admin = events, admin
    try:
        process.wait_ready().wait_served("orders")
        assert process.send("orders").status == 202
        assert process.send("nowhere").status == 404
        assert request(admin, "GET", "/livez", body=None).text == "ok\n"
        assert request(events, "GET", "/livez", body=None).status == 404
        assert request(admin, host="orders.default", body=b"x").status == 404, "the admin port takes no events"
    finally:
        process.kill()
