"""Delivery: validates the destinations of a subscription before its lane opens."""

from __future__ import annotations

from bus_core.data_plane.delivery.lane import Target
from bus_core.model.destination import parse_destination, parse_sink
from bus_core.model.errors import DestinationError, PermanentError


def validate_target(target: Target) -> None:
    """Check every destination of a subscription.

    Raises:
        PermanentError: a destination is invalid, or dead letters would return to their own channel.
    """
    try:
        for destination in filter(None, (target.subscriber, target.reply_to)):
            parse_destination(destination, target.channel.namespace)
        if target.spec.dead_letter_sink:
            parse_sink(target.spec.dead_letter_sink, target.channel)
    except DestinationError as error:
        raise PermanentError(str(error)) from None
