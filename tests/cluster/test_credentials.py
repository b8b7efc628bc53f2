"""Credentials that rotate, against a server that checks bearer tokens: read again in time, and after a 401."""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from bus_core import ConfigurationError
from bus_core.control_plane.cluster import ApiError
from bus_core.control_plane.cluster import credentials as credentials_module
from bus_core.control_plane.cluster.access import connect
from bus_core.control_plane.sources.kubernetes import KubernetesSource
from bus_core.control_plane.sources.kubernetes import source as source_module
from bus_core.model.references import BusReference
from tests.cluster.api_double import ApiDouble, kubeconfig
from tests.support import wait_for


@pytest.fixture
def server() -> Iterator[ApiDouble]:
    made = ApiDouble("one")
    yield made
    made.close()


def put(path: Path, token: str) -> None:
    """Replace a file in one step, as the kubelet does."""
    path.with_suffix(".new").write_text(f"{token}\n")
    path.with_suffix(".new").replace(path)


def test_a_token_file_that_is_rotated_is_read_again(server: ApiDouble, tmp_path: Path) -> None:
    token = tmp_path / "token"
    put(token, "one")
    client = connect("", str(kubeconfig(tmp_path / "config", server.url, tokenFile=str(token))))
    client.get("/things")
    put(token, "two")
    server.tokens = {"two"}
    client.get("/things")
    assert server.statuses() == [200, 200], "not one request with the old token"


def test_a_token_file_is_found_beside_its_kubeconfig(server: ApiDouble, tmp_path: Path) -> None:
    put(tmp_path / "token", "one")
    client = connect("", str(kubeconfig(tmp_path / "config", server.url, tokenFile="token")))
    client.get("/things")
    assert server.statuses() == [200]


def test_a_token_that_changes_without_a_trace_is_read_after_a_401(server: ApiDouble, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("one")
    before = token.stat()
    client = connect("", str(kubeconfig(tmp_path / "config", server.url, tokenFile=str(token))))
    client.get("/things")
    token.write_text("two")
    os.utime(token, ns=(before.st_atime_ns, before.st_mtime_ns))
    server.tokens = {"two"}
    client.get("/things")
    assert server.statuses() == [200, 401, 200]


def test_a_kubeconfig_that_is_edited_is_read_after_a_401(server: ApiDouble, tmp_path: Path) -> None:
    config = kubeconfig(tmp_path / "config", server.url, token="one")
    client = connect("", str(config))
    client.get("/things")
    kubeconfig(config, server.url, token="two")
    server.tokens = {"two"}
    client.get("/things")
    assert server.statuses() == [200, 401, 200]


def test_a_credential_plug_in_is_asked_again_after_a_401_and_not_for_each(server: ApiDouble, tmp_path: Path) -> None:
    token, calls, plugin = tmp_path / "token", tmp_path / "calls", tmp_path / "plugin"
    token.write_text("one")
    plugin.write_text(
        f"#!/bin/sh\necho call >> {calls}\n"
        '/bin/echo "{\\"apiVersion\\": \\"client.authentication.k8s.io/v1\\", \\"kind\\": \\"ExecCredential\\", '
        f'\\"status\\": {{\\"token\\": \\"$(cat {token})\\"}}}}"\n'
    )
    plugin.chmod(plugin.stat().st_mode | stat.S_IXUSR)
    execute = {"apiVersion": "client.authentication.k8s.io/v1", "command": str(plugin), "interactiveMode": "Never"}
    client = connect("", str(kubeconfig(tmp_path / "config", server.url, exec=execute)))
    client.get("/things")
    token.write_text("two")
    server.tokens = {"two"}
    client.get("/things")
    assert server.statuses() == [200, 401, 200]
    server.tokens = {"three"}
    for _ in range(5):
        with pytest.raises(ApiError):
            client.get("/things")
    assert calls.read_text().count("call") == 2


def test_a_pods_token_is_read_again_at_once(server: ApiDouble, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The official client reads it once a minute, which is late where the old token is revoked at once."""
    token = tmp_path / "token"
    put(token, "one")
    monkeypatch.setattr(credentials_module, "TOKEN", token)
    monkeypatch.setattr(
        "kubernetes.config.load_incluster_config",
        lambda configuration: setattr(configuration, "host", server.url),
    )
    client = connect()
    client.get("/things")
    put(token, "two")
    server.tokens = {"two"}
    client.get("/things")
    assert server.statuses() == [200, 200]


def test_credentials_that_stay_rejected_are_a_problem_until_they_are_renewed(
    server: ApiDouble, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source_module, "REJECTED", 0.3)
    token = tmp_path / "token"
    put(token, "old")
    client = connect("", str(kubeconfig(tmp_path / "config", server.url, tokenFile=str(token))))
    source, stop = KubernetesSource(client, BusReference("demo", "default")), threading.Event()
    thread = threading.Thread(target=source.run, args=(print, stop))
    thread.start()
    try:
        wait_for(source.problems)
        assert source.rejections() == [], "a token may be on its way"
        wait_for(source.rejections)
        assert "401" in source.rejections()[0]
        put(token, "one")
        wait_for(lambda: not source.rejections())
        wait_for(source.synced.is_set)
    finally:
        stop.set()
        thread.join()


def test_a_kubeconfig_that_cannot_be_used_is_a_mistake_of_the_user(tmp_path: Path) -> None:
    path = tmp_path / "config"
    for text in ("", "[]", "users: 3", "contexts: [{}]"):
        path.write_text(text)
        with pytest.raises(ConfigurationError, match="config"):
            connect("", str(path))
