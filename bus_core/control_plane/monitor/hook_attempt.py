"""Monitor: one call of a hook, and the retry that its error asks for."""

from __future__ import annotations

import math
from collections.abc import Callable
from types import TracebackType

from bus_core.control_plane.monitor.applied_state import Failure, Fingerprint, Result
from bus_core.control_plane.monitor.workqueue import backoff
from bus_core.model.errors import ConfigurationError, PermanentError, TemporaryError
from bus_core.telemetry import get_logger

_REASONS = {"temporary": "TemporaryError", "permanent": "PermanentError", "error": "HookFailed"}

log = get_logger(__name__)


class HookAttempt:
    """Use it as `with HookAttempt(...) as attempt:` around the call of a hook. Then read `attempt.failure`.

    A driver may raise any error, so no `Exception` leaves the block.

    Args:
        hook: hook and resource, for the log.
        fingerprint: the arguments of the call.
        before: the hook's failure before this call, or None. It counts the failures in a row.
        clock: seconds, monotonic. Read after the call, so that a slow hook is not due again at once.
        jitter: in [0, 1).
    """

    def __init__(
        self,
        hook: str,
        fingerprint: Fingerprint,
        before: Failure | None,
        clock: Callable[[], float],
        jitter: Callable[[], float],
    ) -> None:
        self.hook = hook
        self.failure: Failure | None = None
        self._fingerprint = fingerprint
        self._before = before
        self._clock = clock
        self._jitter = jitter

    def __enter__(self) -> HookAttempt:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if error is None:
            return False
        if not isinstance(error, Exception):
            return False
        if isinstance(error, TemporaryError):
            self.failure = self._failed("temporary", error, self._clock() + error.retry_after)
        elif isinstance(error, PermanentError | ConfigurationError):
            self.failure = self._failed("permanent", error, math.inf)
        else:
            self.failure = failure = self._failed("error", error, self._clock())
            failure.until += backoff(failure.times, self._jitter)
            if self._before is None or self._before.message != failure.message:
                log.error("a hook failed and will be retried", hook=self.hook, exc_info=(kind, error, trace))
        return True

    def _failed(self, result: Result, error: Exception, until: float) -> Failure:
        message = str(error) or type(error).__name__
        if result == "error":
            message = f"{type(error).__name__}: {message}"
        before = self._before
        times = before.times + 1 if before is not None and before.fingerprint == self._fingerprint else 1
        return Failure(self._fingerprint, result, _REASONS[result], message, until, times)
