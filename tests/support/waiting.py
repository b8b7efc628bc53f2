"""Waiting with a deadline, free ports, and the places of the checkout."""

from __future__ import annotations

import contextlib
import random
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

ROOT = Path(__file__).resolve().parent.parent.parent
QUICKSTART = ROOT / "examples" / "quickstart"
BUS = Path(sys.executable).with_name("bus")


def wait_for(condition: Callable[[], T], timeout: float = 10.0, what: str = "") -> T:
    """The condition's first true value; fails when there is none within the time."""
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout:g} s: {what or condition}")
        time.sleep(0.01)


def free_port() -> int:
    """A port that nobody listens on, from below the range that the system gives to outgoing connections: one from that
    range may be taken again before its server binds it."""
    while True:
        port = random.randrange(12_000, 32_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
