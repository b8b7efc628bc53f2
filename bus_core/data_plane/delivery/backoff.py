"""Delivery: which failures are retried, such as which statuses, and how long the wait before a retry is."""

from __future__ import annotations

import datetime as dt
import email.utils
from collections.abc import Callable

from bus_core.model.errors import DispatchError, ResponseError
from bus_core.model.specs import DeliverySpec

MAX_BACKOFF = 30.0
"""The longest wait between two tries in seconds, whatever the policy."""

_RETRYABLE = frozenset({404, 408, 409, 429})
_RETRY_AFTER = frozenset({429, 503})


def is_retryable(error: DispatchError) -> bool:
    """Whether the same delivery may succeed later: any failure without an answer, and 404, 408, 409, 429, 5xx."""
    if isinstance(error, ResponseError):
        return error.status in _RETRYABLE or error.status >= 500
    return True


def delay(attempt: int, spec: DeliverySpec, random: Callable[[], float]) -> float:
    """Seconds to wait after failed try number `attempt` (from 1), with full jitter.

    Full jitter: a random wait between zero and the policy's step, so that events that failed together are not retried
    together.
    """
    base = spec.backoff_delay or 0.0
    factor = attempt if spec.backoff_policy == "linear" else 2.0 ** min(attempt - 1, 30)
    return min(base * factor, MAX_BACKOFF) * random()


def retry_after(error: DispatchError, limit: float, now: dt.datetime) -> float:
    """The wait in seconds that a 429 or 503 asks for, at most `limit`; 0.0 if it asks for none.

    Reads both forms of RFC 9110, section 10.2.3: delay-seconds and HTTP-date.
    """
    if not isinstance(error, ResponseError) or error.status not in _RETRY_AFTER:
        return 0.0
    value = error.headers.get("retry-after", "").strip()
    if value.isascii() and value.isdigit():
        return min(float(value[:9]), limit)
    try:
        moment = email.utils.parsedate_to_datetime(value)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=dt.UTC)
        return min(max((moment - now).total_seconds(), 0.0), limit)
    except (ValueError, OverflowError):  # not a valid date
        return 0.0
