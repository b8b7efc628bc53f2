"""A full server: whom a new connection replaces, and the answer when nobody can be replaced."""

from __future__ import annotations

import statistics
import threading
import time

import pytest

from bus_core.data_plane.server import Limits
from tests.server.serving import Echo, connect, serving
from tests.support import raw, request, wait_for

ASK = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi"
HALF = b"POST / HTTP/1.1\r\nHost: a\r\nx: "


def test_the_oldest_without_a_whole_request_goes_first() -> None:
    with serving(Limits(max_connections=3), Echo()) as (address, _):
        idle = connect(address, ASK)
        assert b"200" in idle.recv(1000)
        oldest, half_body = connect(address, HALF), connect(address, ASK[:-1])
        for _ in range(2):  # by then the server has read the halves
            idle.sendall(ASK)
            assert b"200" in idle.recv(1000)
        assert request(address).text == "x", "a fourth one is let in"
        assert oldest.recv(1000).startswith(b"HTTP/1.1 503 ")
        assert oldest.recv(1000) == b""
        with connect(address, ASK) as fifth, connect(address, ASK) as sixth:
            assert b"200" in fifth.recv(1000)
            assert b"200" in sixth.recv(1000)
            assert half_body.recv(1000).startswith(b"HTTP/1.1 503 ")
            assert half_body.recv(1000) == b""
            idle.sendall(ASK)
            assert b"200" in idle.recv(1000), "one that has sent a whole request stays"
        for sock in (idle, oldest, half_body):
            sock.close()


def test_after_them_the_one_that_was_idle_for_the_longest() -> None:
    with serving(Limits(max_connections=2), Echo()) as (address, _):
        first, second = connect(address, ASK), connect(address)
        assert b"200" in first.recv(1000)
        second.sendall(ASK)
        assert b"200" in second.recv(1000)
        first.sendall(ASK)
        assert b"200" in first.recv(1000)  # now the second has been idle for longer
        with connect(address, ASK) as third:
            assert b"200" in third.recv(1000)
            assert second.recv(1000) == b"", "no answer: it has asked for nothing"
            first.sendall(ASK)
            assert b"200" in first.recv(1000)
        first.close()
        second.close()


def test_when_all_are_busy_a_new_one_is_answered_503_and_room_is_found_again() -> None:
    with serving(Limits(max_connections=3), Echo()) as (address, service):
        service.hold = threading.Event()
        busy = [connect(address, ASK) for _ in range(3)]
        wait_for(lambda: len(service.bodies) == 3)
        for _ in range(200):  # more than may linger
            head, _, body = raw(address, ASK).partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 503 ")
            assert b"\r\nretry-after: 1\r\n" in head + b"\r\n"
            assert b"\r\nconnection: close\r\n" in head + b"\r\n"
            assert body.endswith(b"try again\n")
        service.hold.set()
        for sock in busy:
            assert sock.recv(1000).startswith(b"HTTP/1.1 200 "), "the busy ones are answered"
        assert request(address).text == "x"
        for sock in busy:
            sock.close()


def p99(address: str, count: int) -> float:
    """Of requests on new connections, one after the other, in seconds."""
    taken = []
    for _ in range(count):
        began = time.perf_counter()
        assert request(address, body=b"good").text == "good"
        taken.append(time.perf_counter() - began)
    return statistics.quantiles(taken, n=100)[-1]


@pytest.mark.parametrize("places", [1000, 999, 600])
def test_999_half_sent_requests_do_not_hold_up_a_good_sender(places: int) -> None:
    """p99 with them, also where all places are taken, is at most five times that without them, in one run; medians of
    several turns, because machines stutter."""
    ratios = []
    with serving(Limits(max_connections=places), Echo()) as (address, _):
        for _ in range(5):
            alone = p99(address, 300)
            half = [connect(address, HALF) for _ in range(999)]
            ratios.append(p99(address, 300) / alone)
            for sock in half:
                sock.close()
    assert statistics.median(ratios) <= 5, ratios


def test_half_senders_that_come_back_do_not_hold_up_a_good_sender() -> None:
    """Each that was closed opens another connection, 500 a second, as long as the good sender sends."""
    stop = threading.Event()
    with serving(Limits(max_connections=300), Echo()) as (address, _):
        alone = p99(address, 300)
        half = [connect(address, HALF) for _ in range(300)]

        def come_back() -> None:
            number = 0
            while not stop.wait(0.002):
                number += 1
                half[number % len(half)].close()
                half[number % len(half)] = connect(address, HALF)

        attacker = threading.Thread(target=come_back, name="attacker")
        attacker.start()
        try:
            ratios = [p99(address, 300) / alone for _ in range(5)]
        finally:
            stop.set()
            attacker.join()
            for sock in half:
                sock.close()
    assert statistics.median(ratios) <= 5, ratios
