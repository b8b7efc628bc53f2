"""What many tests share: waiting with a deadline, subscribers that are real servers, and the bus as a real process."""

from tests.support.bus_process import BusProcess, bus, children, manifest, stored
from tests.support.requests import Response, raw, request
from tests.support.subscriber import Answer, Request, Subscriber, subscriber
from tests.support.waiting import BUS, QUICKSTART, ROOT, free_port, wait_for

__all__ = [
    "BUS",
    "QUICKSTART",
    "ROOT",
    "Answer",
    "BusProcess",
    "Request",
    "Response",
    "Subscriber",
    "bus",
    "children",
    "free_port",
    "manifest",
    "raw",
    "request",
    "stored",
    "subscriber",
    "wait_for",
]
