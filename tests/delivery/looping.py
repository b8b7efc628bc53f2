"""What tests of the loop executor share."""

from __future__ import annotations

import pytest

from bus_core.data_plane.delivery.thread_executor import ThreadExecutor
from bus_core.model.message import Message
from bus_core.model.references import ChannelReference, SubscriptionReference
from tests.delivery.rig import ORDERS, Rig
from tests.dispatch.servers import ACCEPTED, Conversation


class ByThread:
    """Counts the attempts that threads make, by the event's body."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.bodies: list[bytes] = []
        attempt = ThreadExecutor._attempt

        def counted(executor: ThreadExecutor, worker, event):  # type: ignore[no-untyped-def]
            self.bodies.append(bytes(event.message.payload))
            return attempt(executor, worker, event)

        monkeypatch.setattr(ThreadExecutor, "_attempt", counted)


def connect(it: Rig, one: SubscriptionReference, channel: ChannelReference = ORDERS) -> None:
    """Have a thread open the connection."""
    it.delivery.submit(one, Message({"ce-id": "0"}, b"first")).result(5)


def bodies(number: int) -> list[bytes]:
    return [b"%04d" % index for index in range(number)]


def serve(conversation: Conversation) -> None:
    while conversation.read() is not None:
        conversation.send(ACCEPTED)
