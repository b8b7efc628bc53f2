"""Source: Events (events.k8s.io/v1), written by a thread of their own; repeated ones become a series."""

from __future__ import annotations

import datetime as dt
import os
import queue
import socket
import threading
import time
import uuid
from collections.abc import Callable
from typing import Any

from bus_core.control_plane.cluster import EVENTS, ApiError, ClusterClient
from bus_core.model.resources import API_VERSION, Resource
from bus_core.telemetry import get_logger

REPEAT = 60.0
"""Seconds within which a repeated Event is only counted."""

BURST = 5
REFILL = 60.0
"""The limit per resource and reason: so many different Events at once, and one more each so many seconds."""

MAX_NOTE = 1024
"""The longest note in characters (events.k8s.io/v1)."""

log = get_logger(__name__)


class EventRecorder:
    """Records Events; its own thread writes them. `record` is thread-safe, and never blocks or raises."""

    def __init__(self, client: ClusterClient, component: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._client = client
        self._component = component
        self._instance = f"{component}-{socket.gethostname()}-{os.getpid()}"[:128]
        self._clock = clock
        self._queue: queue.Queue[tuple[str, dict[str, Any]] | None] = queue.Queue(1000)
        self._said: dict[tuple[str, str, str], tuple[float, str, int]] = {}  # when, the Event's path, how often
        self._budget: dict[tuple[str, str], tuple[float, float]] = {}
        self._lock = threading.Lock()  # guards what was said and the budget
        self._thread = threading.Thread(target=self._run, name="events", daemon=True)
        self._warned = -1e9
        self._next_sweep = clock() + 10 * REPEAT

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Stop the thread. It writes waiting Events for at most a second."""
        try:
            self._queue.put_nowait(None)
        except queue.Full:
            return
        self._thread.join(1.0)

    def record(self, resource: Resource, reason: str, message: str, *, warning: bool = False) -> None:
        note = message if len(message) <= MAX_NOTE else f"{message[: MAX_NOTE - 1]}…"
        now = self._clock()
        with self._lock:
            path, event = self._plan(resource, reason, note, warning, now)
        if path:
            try:
                self._queue.put_nowait((path, event))
            except queue.Full:
                log.debug("skipped an Event: too many are waiting", resource=str(resource.key), reason=reason)

    def _plan(
        self, resource: Resource, reason: str, note: str, warning: bool, now: float
    ) -> tuple[str, dict[str, Any]]:
        """Path and body of the write for this Event; an empty path if no write is needed."""
        key = (resource.uid, reason, note)
        stamp = dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        said = self._said.get(key)
        if said is not None:
            at, path, count = said
            due = now - at >= REPEAT
            self._said[key] = (now if due else at, path, count + 1)
            return (path, {"series": {"count": count + 1, "lastObservedTime": stamp}}) if due else ("", {})
        left, since = self._budget.get((resource.uid, reason), (float(BURST), now))
        left = min(left + (now - since) / REFILL, float(BURST))
        if left < 1:
            return "", {}
        self._budget[resource.uid, reason] = (left - 1, now)
        self._sweep(now)
        namespace = resource.namespace or "default"
        name = f"{resource.name}.{uuid.uuid4().hex[:16]}"
        self._said[key] = (now, EVENTS.path(namespace, name), 1)
        regarding = {
            "apiVersion": API_VERSION,
            "kind": resource.kind,
            "name": resource.name,
            "uid": resource.uid,
            "resourceVersion": resource.metadata.resource_version,
        }
        event = {
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": {"name": name, "namespace": namespace},
            "eventTime": stamp,
            "type": "Warning" if warning else "Normal",
            "reason": reason,
            "action": "Reconcile",
            "note": note,
            "regarding": regarding | ({"namespace": resource.namespace} if resource.namespace else {}),
            "reportingController": self._component,
            "reportingInstance": self._instance,
        }
        return EVENTS.path(namespace), event

    def _sweep(self, now: float) -> None:
        """Forget old Events from time to time, to bound memory."""
        if now >= self._next_sweep:
            self._next_sweep = now + 10 * REPEAT
            self._said = {key: said for key, said in self._said.items() if now - said[0] < 10 * REPEAT}
            self._budget = {key: spent for key, spent in self._budget.items() if now - spent[1] < BURST * REFILL}

    def _run(self) -> None:
        while (item := self._queue.get()) is not None:
            path, body = item
            try:
                if "series" in body:
                    self._client.merge(path, body)
                else:
                    self._client.create(path, body)
            except ApiError as error:
                now = self._clock()
                if error.status != 404 and not error.unreachable and now - self._warned >= REPEAT:
                    self._warned = now
                    log.warning("Events cannot be written", detail=str(error), status=error.status)
