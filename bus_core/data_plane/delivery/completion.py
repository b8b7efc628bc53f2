"""What is to be called once the lock is given back: whoever waits for a submitted event may do anything there."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import Future, InvalidStateError

from bus_core.driver.hookspecs import Outcome

Callback = Callable[[], None]


def resolve(future: Future[Outcome], outcome: Outcome) -> None:
    """Give a submitted event its outcome, unless whoever waited for it has cancelled."""
    try:
        future.set_result(outcome)
    except InvalidStateError:
        return


def fail(future: Future[Outcome], error: Exception) -> None:
    """The same with an error."""
    try:
        future.set_exception(error)
    except InvalidStateError:
        return


def run_all(callbacks: Iterable[Callback]) -> None:
    for callback in callbacks:
        callback()
