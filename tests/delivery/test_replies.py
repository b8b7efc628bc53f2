"""Replies that are too much: a gigabyte, and a bomb. The bus takes its cap of them, and no memory."""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.dispatch.servers import Conversation, serving
from tests.support import ROOT

GIGABYTE = 1 << 30
needs_proc = pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(), reason="peak memory is read from Linux's /proc"
)
PROGRAM = """
import sys, threading, time
from tests.delivery.rig import rig

def rss(field):
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(field)) / 1024

with rig() as it:
    it.open("warm", sys.argv[1] + "small", retry=0)
    it.publish(b"x")
    it.settle()
    it.delivery.close(it.open("warm", sys.argv[1] + "small", retry=0))
    it.open("one", sys.argv[1], retry=1, timeout=20.0)
    before = rss("VmRSS:")
    open("/proc/self/clear_refs", "w").write("5")  # VmHWM starts anew
    it.publish(b"x")
    it.settle(60)
    print(rss("VmHWM:") - before)
    it.close()
    print(it.dropped("unavailable"), it.dropped("status"))
"""


def _small(conversation: Conversation) -> bool:
    request = conversation.read()
    if request is not None and b"small" in request.line:
        conversation.send(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
        return True
    return request is None


def _by_length(conversation: Conversation) -> None:
    if _small(conversation):
        return
    conversation.send(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % GIGABYTE)
    for _ in range(GIGABYTE >> 20):
        conversation.send(bytes(1 << 20))


def _chunked(conversation: Conversation) -> None:
    if _small(conversation):
        return
    conversation.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
    for _ in range(GIGABYTE >> 20):
        conversation.send(b"100000\r\n" + bytes(1 << 20) + b"\r\n")


def _endless_header(conversation: Conversation) -> None:
    if _small(conversation):
        return
    conversation.send(b"HTTP/1.1 200 OK\r\nx: ")
    for _ in range(GIGABYTE >> 20):
        conversation.send(b"a" * (1 << 20))


def measure(url: str) -> tuple[float, int, int]:
    """Peak growth in MB, and how many events were dropped as unavailable and as refused."""
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM, url],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert result.returncode == 0, result.stderr
    growth, unavailable, refused = result.stdout.split()
    print(f"peak growth {growth} MB")
    return float(growth), int(unavailable), int(refused)


@needs_proc
@pytest.mark.parametrize("behave", [_by_length, _chunked, _endless_header])
def test_a_gigabyte_is_cut_at_the_cap(behave: Callable[[Conversation], None]) -> None:
    with serving(behave) as server:
        growth, unavailable, refused = measure(server.url)
    assert growth < 10
    assert unavailable + refused == 1


@needs_proc
def test_a_gzip_bomb_stays_what_it_is() -> None:
    """Nobody asked for an encoding, and nothing is decoded: the bomb is a small body like any other."""
    bomb = gzip.compress(bytes(200 << 20))

    def behave(conversation: Conversation) -> None:
        if not _small(conversation):
            conversation.send(b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: %d\r\n\r\n" % len(bomb))
            conversation.send(bomb)

    with serving(behave) as server:
        growth, unavailable, refused = measure(server.url)
    assert growth < 10
    assert unavailable + refused == 0
