"""The error tree: everything bus-core raises on purpose, with the one action each asks of whoever catches it.

    BusError
    ├── ConfigurationError          the user's mistake: what, where, what to do; the command exits with 2
    │   ├── ManifestError           a manifest that cannot be used (path and line are known)
    │   ├── ParameterError          a required parameter of a channel or subscription has no value
    │   └── DriverError             a driver that is not installed, or breaks the driver contract
    ├── UnknownChannelError         no such channel (404)
    ├── UnknownSubscriptionError    no such subscription in this process
    ├── InvalidMessageError         the event itself is malformed (400)
    │   └── MessageTooLargeError    it is larger than what can be carried (413)
    ├── PermanentError              retrying cannot help: the condition turns False, nothing is requeued
    ├── TemporaryError              try again after `retry_after` seconds (503)
    │   ├── BusyError               a bound is reached, nothing was taken (503)
    │   └── ForbiddenError          the API server refuses a write: the bus lacks a right
    ├── UnavailableError            delivery's tries are spent and there is no dead-letter sink: not to be committed
    └── DispatchError               one HTTP exchange with a subscriber failed
        ├── DestinationError        the destination is no DNS name and no http(s) URL, or its name does not resolve
        ├── ResponseError           it answered, and not with 2xx (`status`, `headers`, `body`)
        ├── DeadlineError           no complete answer within the time allowed
        └── ReplyError              the event arrived, its reply could not be handed on (`reply`)

A driver raises `TemporaryError`, `PermanentError`, `InvalidMessageError` and
`MessageTooLargeError`; the host raises the rest.
"""

from __future__ import annotations

from collections.abc import Mapping

from bus_core.model.message import Message

DEFAULT_RETRY_AFTER = 1.0


class BusError(Exception):
    """The root: catch this to catch everything bus-core raises on purpose."""


class ConfigurationError(BusError):
    """The user's mistake. The text says what is wrong, where, and what to do about it."""


class ManifestError(ConfigurationError):
    """A manifest that cannot be used.

    Args:
        problem: what is wrong and what to do.
        path: the file.
        line: 1-based line in the file, 0 when the whole file is meant.
        field: the place inside the document, such as `spec.arguments.numPartitions`.
    """

    def __init__(self, problem: str, *, path: str = "", line: int = 0, field: str = "") -> None:
        self.problem = problem
        self.path = path
        self.line = line
        self.field = field
        place = f"{path}:{line}" if path and line else path
        super().__init__(": ".join(part for part in (place, field, problem) if part))


class ParameterError(ConfigurationError):
    """A required parameter has no value; the text names every one that lacks it."""


class DriverError(ConfigurationError):
    """A driver that is not installed, or does not keep the driver contract."""


class UnknownChannelError(BusError):
    """Raised by a receiver function for a channel that does not exist; the sender is answered 404."""


class UnknownSubscriptionError(BusError):
    """There is no such subscription in this process (never was, or it has been deleted)."""


class InvalidMessageError(BusError):
    """The event is malformed; the sender is answered 400 with this text."""


class MessageTooLargeError(InvalidMessageError):
    """The event is larger than the bus can carry; the sender is answered 413 with this text."""


class PermanentError(BusError):
    """Retrying cannot help. From a resource hook: the condition turns False and the channel is not requeued."""


class TemporaryError(BusError):
    """Try again later.

    Args:
        message: what is the matter.
        retry_after: seconds to wait; the sender of an event reads it as `Retry-After`.
    """

    def __init__(self, message: str = "", retry_after: float = DEFAULT_RETRY_AFTER) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class ForbiddenError(TemporaryError):
    """The API server refuses a write for want of a right; the text names verb and resource. Rights can be given."""


class BusyError(TemporaryError):
    """A bound is reached: nothing was queued for anyone. A driver pauses, a sender is answered 503 + Retry-After."""


class UnavailableError(BusError):
    """Every try is spent and no dead-letter sink took the event. A durable driver must not commit it."""


class DispatchError(BusError):
    """One HTTP exchange with a destination failed (network, TLS, protocol, or one of the cases below)."""


class DestinationError(DispatchError):
    """The destination is neither a DNS name nor an http(s) URL, or its name does not resolve."""


class DeadlineError(DispatchError):
    """The exchange was not complete within the time allowed for it."""


class ResponseError(DispatchError):
    """The destination answered with anything but 2xx.

    Args:
        destination: where the event was sent, with the values of its query masked.
        status: the HTTP status code.
        headers: the answer's headers, lower-case names.
        body: the answer's body, cut at the cap for replies.
    """

    def __init__(self, destination: str, status: int, headers: Mapping[str, str], body: bytes = b"") -> None:
        super().__init__(f"{destination} answered {status}")
        self.destination = destination
        self.status = status
        self.headers = headers
        self.body = body


class ReplyError(DispatchError):
    """The destination took the event, but its reply could not be handed on to `reply_to`.

    A retry repeats the reply leg only: send `reply` to `reply_to`, never the event again.

    Args:
        reply: the reply as it would be sent.
        reply_to: where it was to go. It may hold secrets, so the text does not name it; the cause names it masked.
        cause: what failed.
    """

    def __init__(self, reply: Message, reply_to: str, cause: DispatchError) -> None:
        super().__init__(f"the reply could not be handed on: {cause}")
        self.reply = reply
        self.reply_to = reply_to
        self.cause = cause
