"""What the hooks of this process have been told, and what of it failed and waits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from bus_core.control_plane.monitor.workqueue import backoff
from bus_core.model.errors import ConfigurationError, PermanentError, TemporaryError
from bus_core.model.parameters import ResolvedParameters
from bus_core.model.resources import Channel, Subscription
from bus_core.telemetry import get_logger

Result = Literal["ok", "temporary", "permanent", "error"]
Fingerprint = tuple[object, ...]

Reporter = Literal["driver", "delivery"]
REPORTERS: tuple[Reporter, ...] = ("driver", "delivery")
"""Who says how a subscription is. A condition has one reason, and the first of them that has something to say gives it:
a driver speaks of events that are held up, which is more than a subscriber that fails."""

log = get_logger(__name__)


@dataclass(slots=True)
class Failure:
    """A hook that failed: it is not called again for the same fingerprint before `until` (monotonic seconds)."""

    fingerprint: Fingerprint
    result: Result
    reason: str
    message: str
    until: float
    times: int = 1


@dataclass(slots=True)
class ToldSubscription:
    subscription: Subscription
    fingerprint: Fingerprint


@dataclass(slots=True)
class Told:
    """Of one channel. `uid` and `channel` are what it was when a hook last heard of it."""

    uid: str = ""
    channel: Channel | None = None
    parameters: ResolvedParameters | None = None  # None: never resolved in this process
    provisioned: Fingerprint | None = None
    subscriptions: dict[str, ToldSubscription] = field(default_factory=dict)
    failures: dict[str, Failure] = field(default_factory=dict)  # "" is the channel, else a subscription's name
    deleted_since: float | None = None
    reach_again: float | None = None  # when to look again whether the channel can be reached by its name
    ended: set[str] = field(default_factory=set)  # uids whose unprovision or unsubscribe has been called

    def comes_back_to(self, name: str) -> bool:
        """Whether a hook that failed is to be called again although nothing changes."""
        failure = self.failures.get(name)
        return failure is not None and failure.until != float("inf")

    def summary(self, now: float, grace: float) -> tuple[Result, float | None]:
        """The worst result, and in how many seconds to come back (None: when something changes)."""
        order: tuple[Result, ...] = ("ok", "permanent", "temporary", "error")
        worst: Result = max((failure.result for failure in self.failures.values()), key=order.index, default="ok")
        moments = [failure.until for failure in self.failures.values() if failure.until != float("inf")]
        if self.deleted_since is not None and now < self.deleted_since + grace:
            moments.append(self.deleted_since + grace)
        if self.reach_again is not None:
            moments.append(self.reach_again)
        return worst, (max(min(moments) - now, 0.0) if moments else None)


def attempt(
    call: Callable[[], None],
    before: Failure | None,
    fingerprint: Fingerprint,
    what: str,
    clock: Callable[[], float],
    jitter: Callable[[], float],
) -> Failure | None:
    """Call a hook; None if it returned, else what its error asks for.

    Args:
        before: the failure of the same hook before this call, if any: it counts the series.
        what: names the hook and its resource, for the log.
        clock: asked after the call: a hook that took long is not due again at once.
    """
    try:
        call()
    except TemporaryError as error:
        return _failure(before, fingerprint, "temporary", error, clock() + error.retry_after)
    except (PermanentError, ConfigurationError) as error:
        return _failure(before, fingerprint, "permanent", error, float("inf"))
    except Exception as error:  # a driver may raise anything; it must not end the monitor
        failure = _failure(before, fingerprint, "error", error, clock())
        failure.until += backoff(failure.times, jitter)
        if before is None or before.message != failure.message:
            log.exception("a hook failed and will be tried again", hook=what)
        return failure
    return None


_REASONS = {"temporary": "TemporaryError", "permanent": "PermanentError", "error": "HookFailed"}


def _failure(
    before: Failure | None, fingerprint: Fingerprint, result: Result, error: Exception, until: float
) -> Failure:
    same = before is not None and before.fingerprint == fingerprint
    message = str(error) or type(error).__name__
    if result == "error":
        message = f"{type(error).__name__}: {message}"
    times = before.times + 1 if same and before else 1
    return Failure(fingerprint, result, _REASONS[result], message, until, times)
