"""The API server's worst days: events flow, it is not asked more than it can bear, and all is well again by itself."""

from __future__ import annotations

import os
import signal
import socket
import struct
import time
from collections.abc import Iterator

import pytest

from bus_core.control_plane.cluster.reflector import BACKOFF
from tests.e2e.cluster.proxy import Mood, Proxy, allowed
from tests.e2e.cluster.stage import Stage, basics
from tests.support import BusProcess, manifest, subscriber, wait_for

OUTAGE = float(os.environ.get("BUS_CLUSTER_OUTAGE", "60"))
SHORT = 8.0
KINDS = ("channels", "subscriptions", "buses", "services")
RECOVERY = max(BACKOFF) * 1.1 + 5


@pytest.fixture
def proxy(lone: Stage) -> Iterator[Proxy]:
    made = Proxy(lone.api.port)
    yield made
    made.close()


def _flows(host: BusProcess, bodies: list[bytes], seconds: float) -> list[bytes]:
    """Send for a while; what was sent, every event of it answered 202."""
    sent: list[bytes] = []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        sent.append(b"%d" % len(bodies) + b"-%d" % len(sent))
        assert host.send("orders", sent[-1]).status == 202
        time.sleep(0.05)  # the pace of the sender
    return sent


def _unwell(lone: Stage, proxy: Proxy, mood: Mood, seconds: float) -> None:
    with subscriber() as server:
        lone.put(*basics(server.url()))
        host = lone.start(server=proxy.url)
        lone.wait_condition("Subscription", "one", "True")
        wait_for(lambda: host.send("orders").status == 202)
        lines, since = len(host.lines), time.monotonic()
        proxy.turn(mood)
        sent = _flows(host, server.bodies(), seconds)
        counts = {kind: proxy.reads(kind, since) for kind in KINDS}
        gone = mood == "410"
        limit = allowed(seconds, 2 if gone else 1, BACKOFF, 2 if gone else 0) + 1
        said = len(host.lines) - lines
        print(f"\n{mood} for {seconds:g} s: {counts} requests (at most {limit}), {said} log lines")
        assert max(counts.values()) <= limit
        assert said <= 20 + seconds
        assert allowed(60, 2 if gone else 1, BACKOFF, 2 if gone else 0) <= 15
        wait_for(lambda: set(sent) <= set(server.bodies()))
        lone.put(manifest("Channel", "later", bus="demo"))
        proxy.turn("well")
        lone.wait_condition("Channel", "later", "True", timeout=RECOVERY)
        wait_for(host.is_ready, 10)
        proxy.turn(mood)
        began = time.monotonic()
        assert host.stop() == 0
        assert time.monotonic() - began < 5, "a stop does not wait for the API server"


@pytest.mark.parametrize("mood", ["500", "429", "410", "closing"])
def test_an_unwell_server_is_not_asked_more(lone: Stage, proxy: Proxy, mood: Mood) -> None:
    _unwell(lone, proxy, mood, SHORT)


@pytest.mark.soak
@pytest.mark.parametrize("mood", ["500", "429", "410", "closing"])
def test_an_unwell_server_is_not_asked_more_in_a_minute(lone: Stage, proxy: Proxy, mood: Mood) -> None:
    _unwell(lone, proxy, mood, OUTAGE)


def _down(lone: Stage, seconds: float, silence: float, *, hangs: bool) -> None:
    with subscriber() as server:
        lone.put(*basics(server.url()))
        host = lone.start("--watch-timeout", f"{silence:g}")
        lone.wait_condition("Subscription", "one", "True")
        wait_for(lambda: host.send("orders").status == 202)
        if hangs:
            lone.api.signal(signal.SIGSTOP)
        else:
            lone.api.kill()
        sent = _flows(host, server.bodies(), seconds)
        wait_for(lambda: set(sent) <= set(server.bodies()))
        assert host.is_ready(), "a worker that has read everything goes on serving"
        if hangs:
            lone.api.signal(signal.SIGCONT)
        else:
            lone.api.run()
        wait_for(lone.api.is_ready, 30)
        lone.put(manifest("Channel", "later", bus="demo"))
        lone.wait_condition("Channel", "later", "True", timeout=RECOVERY + silence)
        lone.api.signal(signal.SIGSTOP)
        began = time.monotonic()
        assert host.stop() == 0
        assert time.monotonic() - began < 5.5, "a stop does not wait for the API server"


@pytest.mark.parametrize("hangs", [False, True], ids=["killed", "stopped"])
def test_events_flow_while_the_server_is_away(lone: Stage, hangs: bool) -> None:
    _down(lone, SHORT, 3, hangs=hangs)


@pytest.mark.soak
@pytest.mark.parametrize("hangs", [False, True], ids=["killed", "stopped"])
def test_events_flow_while_the_server_is_away_for_long(lone: Stage, hangs: bool) -> None:
    _down(lone, OUTAGE * 1.5 if hangs else OUTAGE, 70 if OUTAGE >= 60 else 5, hangs=hangs)


def test_a_host_keeps_to_its_connections_and_log_lines_while_the_server_is_gone(lone: Stage) -> None:
    """All parts of a worker wait for one connection: a listener in the server's place counts them."""
    lone.put(*basics("http://nobody.localhost:1/"))
    host = lone.start("--workers", "2")
    lone.wait_condition("Subscription", "one", "True")
    lone.api.kill()
    wait_for(lambda: host.says("the API server cannot be reached"), 20)
    lines, since = len(host.lines), time.monotonic()
    tries = _connections(lone.api.port, SHORT)
    said = host.lines[lines:]
    print(f"\n{tries} connections and {len(said)} log lines in {SHORT:g} s from two workers")
    assert tries <= 2 * (SHORT + 1)
    assert len(said) <= 4, said
    assert time.monotonic() - since < SHORT + 5
    lone.api.run()
    lone.put(manifest("Channel", "later", bus="demo"))
    lone.wait_condition("Channel", "later", "True", timeout=RECOVERY)
    assert host.stop() == 0


def _connections(port: int, seconds: float) -> int:
    """How many connections come to a port whose listener resets each of them."""
    count, end = 0, time.monotonic() + seconds
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
        listener.listen(64)
        listener.settimeout(0.1)
        while time.monotonic() < end:
            try:
                connection, _ = listener.accept()
            except TimeoutError:
                continue
            count += 1
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.close()
    return count


def test_a_host_that_starts_without_the_server_waits_and_answers_503(lone: Stage) -> None:
    with subscriber() as server:
        lone.put(*basics(server.url()))
        lone.api.kill()
        host = lone.start(ready=False)
        wait_for(lambda: host.says("the API server cannot be reached"), 20)
        wait_for(lambda: _answers(host))
        answer = host.send("orders")
        assert answer.status == 503
        assert int(answer.headers["retry-after"]) >= 1
        assert not host.is_ready()
        lone.api.run()
        wait_for(host.is_ready, RECOVERY)
        wait_for(lambda: host.send("orders").status == 202)
        assert host.stop() == 0


def _answers(host: BusProcess) -> bool:
    try:
        return bool(host.send("orders").status)
    except OSError:
        return False
