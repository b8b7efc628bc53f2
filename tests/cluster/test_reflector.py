"""The reflector's rules, against a script of answers and with an injected clock."""

from __future__ import annotations

from typing import Any

from bus_core.control_plane.cluster import ClusterClient
from bus_core.control_plane.cluster.reflector import BACKOFF, Reflector
from tests.cluster.fakes import Response, Script, event, item, page


class Run:
    """One reflector, run until its script is at its end."""

    def __init__(self, *answers: Any, lived: float = 0.0) -> None:
        self.script = Script(*answers)
        self.seen: list[tuple[str, str]] = []
        self.waits: list[float] = []
        self._now = 0.0
        self._lived = lived
        self.reflector = Reflector(
            ClusterClient(self.script, "server"),
            "things",
            "/things",
            lambda kind, found: self.seen.append((kind, found["metadata"]["name"])),
            clock=self._clock,
            jitter=lambda: 0.0,
        )
        self.reflector.run(self._wait)

    def _clock(self) -> float:
        self._now += self._lived
        return self._now

    def _wait(self, seconds: float) -> bool:
        self.waits.append(seconds)
        return not self.script.answers

    @property
    def queries(self) -> list[str]:
        return [path.partition("?")[2] for _, path in self.script.requests]


def test_pages_then_a_watch_from_their_version() -> None:
    run = Run(
        page(item("a", 1), token="next", version=7),
        page(item("b", 2), version=7),
        Response(lines=[event("MODIFIED", item("a", 8)), event("DELETED", item("b", 9))]),
    )
    assert run.seen == [("", "a"), ("", "b"), ("", "a"), ("DELETED", "b")]
    assert run.reflector.synced.is_set()
    assert "continue=next" in run.queries[1]
    assert "resourceVersion=7" in run.queries[2]
    assert "allowWatchBookmarks=true" in run.queries[2]


def test_a_bookmark_moves_the_version_and_is_told_to_nobody() -> None:
    bookmark = event("BOOKMARK", {"metadata": {"resourceVersion": "50"}})
    run = Run(page(version=1), Response(lines=[bookmark]), Response(lines=[]), lived=6)
    assert run.seen == []
    assert "resourceVersion=50" in run.queries[2]


def test_gone_means_one_new_list_without_phantoms() -> None:
    gone = event("ERROR", {"code": 410, "reason": "Expired", "message": "too old"})
    run = Run(
        page(item("a", 1), item("b", 2)),
        Response(lines=[gone]),
        page(item("a", 1), item("c", 3), version=9),
        Response(lines=[]),
    )
    assert run.seen == [("", "a"), ("", "b"), ("", "c"), ("DELETED", "b")]
    assert run.waits[0] == BACKOFF[2]


def test_failures_back_off_and_a_watch_that_lived_begins_anew() -> None:
    failures = [OSError("no route")] * 9
    run = Run(*failures)
    assert run.waits == [1, 1, 2, 3, 5, 8, 13, 21, 21]
    assert "no route" in run.reflector.problem

    run = Run(OSError("x"), OSError("x"), page(), Response(lines=[]), OSError("x"), lived=6)
    assert run.waits == [1, 1, 0, 1]


def test_watches_that_end_at_once_back_off_too() -> None:
    run = Run(page(), *[Response(lines=[]) for _ in range(6)])
    assert run.waits == [1, 1, 2, 3, 5, 8]


def test_the_server_may_ask_for_more_patience() -> None:
    run = Run(Response(429, {"message": "slow down"}, retry_after="17"))
    assert run.waits == [17]
    assert run.reflector.problem == "slow down"


def test_a_watch_that_breaks_in_the_middle_keeps_what_was_read() -> None:
    class Broken(Response):
        def read1(self, amt: int) -> bytes:
            found = super().read1(amt)
            if not found:
                raise OSError("reset")
            return found

    run = Run(page(version=1), Broken(lines=[event("ADDED", item("a", 5))]), Response(lines=[]))
    assert run.seen == [("", "a")]
    assert "resourceVersion=5" in run.queries[2]
