"""Model: the error tree. Each error that bus-core raises on purpose, and the action that it asks for.

    BusError
    ├── ConfigurationError          a user's mistake; the command exits with 2
    │   ├── ManifestError           a manifest that cannot be used (path and line are known)
    │   ├── ParameterError          a required parameter of a channel or subscription has no value
    │   └── DriverError             a driver that is not installed, or breaks the driver contract
    ├── UnknownChannelError         no such channel (404)
    ├── UnknownSubscriptionError    no such subscription in this process
    ├── InvalidMessageError         the event itself is malformed (400)
    │   └── MessageTooLargeError    the event is larger than the bus can carry (413)
    ├── PermanentError              retrying cannot help: the condition turns False, nothing is requeued
    ├── TemporaryError              try again after `retry_after` seconds (503)
    │   ├── BusyError               a bound is reached, and nothing was queued (503)
    │   └── ForbiddenError          the API server refuses a write: the bus lacks a permission
    ├── UnavailableError            all tries failed and no dead-letter sink took the event: do not commit it
    └── DispatchError               one HTTP exchange with a subscriber failed
        ├── DestinationError        the destination is neither a DNS name nor an http(s) URL, or does not resolve
        ├── ResponseError           the subscriber did not answer 2xx (`status`, `headers`, `body`)
        ├── DeadlineError           no complete answer within the time allowed
        └── ReplyError              the event arrived, but its reply could not be forwarded (`reply`)

A driver raises `TemporaryError`, `PermanentError`, `InvalidMessageError` and
`MessageTooLargeError`; the host raises the rest.
"""

from __future__ import annotations

from collections.abc import Mapping

from bus_core.model.message import Message

DEFAULT_RETRY_AFTER = 1.0


class BusError(Exception):
    """The root of the error tree."""


class ConfigurationError(BusError):
    """A user's mistake. The text says what is wrong, where it is, and how to correct it."""


class ManifestError(ConfigurationError):
    """A manifest that cannot be used.

    Args:
        problem: what is wrong and how to correct it.
        path: the file.
        line: the line in the file, from 1; 0 means the whole file.
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
    """Required parameters have no value. The text names all of them."""


class DriverError(ConfigurationError):
    """A driver is not installed, or breaks the driver contract."""


class UnknownChannelError(BusError):
    """The channel does not exist. A receiver function raises it; the sender gets 404."""


class UnknownSubscriptionError(BusError):
    """This process has no such subscription: it never existed, or it was deleted."""


class InvalidMessageError(BusError):
    """The event is malformed. The sender gets 400 with this text."""


class MessageTooLargeError(InvalidMessageError):
    """The event is larger than the bus can carry. The sender gets 413 with this text."""


class PermanentError(BusError):
    """Retrying cannot help. From a resource hook: the condition turns False and the channel is not requeued."""


class TemporaryError(BusError):
    """Try again later.

    Args:
        message: what is wrong.
        retry_after: seconds to wait. The sender of an event gets it as `Retry-After`.
    """

    def __init__(self, message: str = "", retry_after: float = DEFAULT_RETRY_AFTER) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class ForbiddenError(TemporaryError):
    """The bus lacks a permission to write. The text names verb and resource. Retried, since RBAC may be fixed later."""


class BusyError(TemporaryError):
    """A bound is reached, and nothing was queued. A driver pauses; a sender gets 503 with Retry-After."""


class UnavailableError(BusError):
    """All tries failed and no dead-letter sink took the event. A durable driver must not commit it."""


class DispatchError(BusError):
    """One HTTP exchange with a destination failed (network, TLS, protocol, or one of the subclasses)."""


class DestinationError(DispatchError):
    """The destination is neither a DNS name nor an http(s) URL, or its name does not resolve."""


class DeadlineError(DispatchError):
    """The exchange was not complete before its deadline."""


class ResponseError(DispatchError):
    """The destination did not answer 2xx.

    Args:
        destination: where the event was sent, with the values of its query masked.
        status: the HTTP status code.
        headers: the answer's headers, with names in lower case.
        body: the answer's body, up to the limit for replies.
    """

    def __init__(self, destination: str, status: int, headers: Mapping[str, str], body: bytes = b"") -> None:
        super().__init__(f"{destination} answered {status}")
        self.destination = destination
        self.status = status
        self.headers = headers
        self.body = body


class ReplyError(DispatchError):
    """The destination took the event, but its reply could not be forwarded to `reply_to`.

    A retry sends `reply` to `reply_to`. It never sends the event again.

    Args:
        reply: the reply to send.
        reply_to: its destination. The text leaves it out because it may contain secrets; `cause` names it masked.
        cause: the failure of that exchange.
    """

    def __init__(self, reply: Message, reply_to: str, cause: DispatchError) -> None:
        super().__init__(f"the reply could not be forwarded: {cause}")
        self.reply = reply
        self.reply_to = reply_to
        self.cause = cause
