"""What a subscription may not ask for, found out before its lane opens."""

from __future__ import annotations

from bus_core.delivery.lane import Target
from bus_core.dispatch.destination import parse_destination
from bus_core.errors import DestinationError, InvalidMessageError, PermanentError
from bus_core.references import ChannelReference


def check(target: Target) -> None:
    """Look at every destination of a subscription.

    Raises:
        PermanentError: one cannot be used, or dead letters would go to the channel they come from.
    """
    for destination in filter(None, (target.subscriber, target.reply_to, target.spec.dead_letter_sink)):
        try:
            parse_destination(destination, target.channel.namespace)
        except DestinationError as error:
            raise PermanentError(str(error)) from None
    sink = target.spec.dead_letter_sink
    if sink and _leads_to(sink, target.channel):
        raise PermanentError(
            f"deadLetterSink {sink!r} is the channel {target.channel} itself: its dead letters would come back; "
            "name another channel or an address outside the bus"
        )


def _leads_to(destination: str, channel: ChannelReference) -> bool:
    host = parse_destination(destination, channel.namespace).authority
    try:
        return ChannelReference.from_host(host) == channel
    except InvalidMessageError:
        return False
