"""Delivery: completions of submitted events. They run after the engine's lock is released.

A driver's callback may call delivery again.
"""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass

from bus_core.driver.hookspecs import Outcome
from bus_core.telemetry import get_logger

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Completion:
    """The end of one submitted event: its outcome, its error, or neither if it is cancelled."""

    future: Future[Outcome]
    outcome: Outcome | None = None
    error: Exception | None = None

    def run(self) -> None:
        """Complete the future, which calls its callbacks on this thread. No effect if the driver has cancelled it."""
        try:
            if self.outcome is not None:
                self.future.set_result(self.outcome)
            elif self.error is not None:
                self.future.set_exception(self.error)
            else:
                self.future.cancel()
        except InvalidStateError:
            return


def run_all(completions: Iterable[Completion]) -> None:
    """Run completions without a lock. Never raises: an exception of a callback is logged, and the others run."""
    for completion in completions:
        try:
            completion.run()
        except BaseException:  # futures also pass on SystemExit, which a worker thread must survive
            log.exception("a callback of a submitted event failed")
