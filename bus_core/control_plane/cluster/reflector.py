"""Cluster: the reflector keeps one kind of object in step with the API server, by lists and watches.

The rules are from the Kubernetes page "API concepts": a list in pages, then a watch with bookmarks from the list's
resourceVersion; after 410 (Gone, or the status Expired in a watch) a new list. A new list is compared with the known
objects: equal objects are not reported, missing objects were deleted.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from typing import Any, Final

from bus_core.control_plane.cluster.client import LIST_READ, ApiError, ClusterClient, Object, Stream
from bus_core.telemetry import get_logger

BACKOFF: Final = (1, 1, 2, 3, 5, 8, 13, 21)
"""Seconds between failing tries; the last value repeats. Nine tries in the first minute."""

_AFTER_GONE = 2  # where a 410 starts in BACKOFF: a list and a watch are two requests

LIVED = 5.0
"""The least duration in seconds of a working watch. A shorter watch does not reset the back-off."""

SILENCE = 70.0
"""Seconds without a byte after which a watch is restarted. The server sends a bookmark about every minute."""

PAGE = 500

log = get_logger(__name__)

Key = tuple[str, str]  # namespace, name
OnObject = Callable[[str, Object], None]  # "" or "DELETED", and the object


class Reflector:
    """Follows one kind in one namespace, or in all. Call `run` on its own thread, other methods on any thread.

    Args:
        what: for people, such as `channels in default`.
        path: the path of the list.
        on_object: called for each new, changed or deleted object. Must not block.
        query: more parameters of list and watch, such as a field selector.
        silence: seconds without a byte after which a watch is restarted.
    """

    def __init__(
        self,
        client: ClusterClient,
        what: str,
        path: str,
        on_object: OnObject,
        *,
        query: dict[str, str] | None = None,
        silence: float = SILENCE,
        clock: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self.what = what
        self.synced = threading.Event()
        self.problem = ""
        self._client = client
        self._path = path
        self._query = query or {}
        self._silence = silence
        self._clock = clock
        self._objects = _Objects(on_object)
        self._backoff = _Backoff(jitter)
        self._open = _OpenWatch()
        self._version = ""

    def run(self, wait: Callable[[float], bool]) -> None:
        """List and watch until `wait` returns that it is time to stop."""
        while not self._open.stopped:
            try:
                if not self._version:
                    self._list()
                self._watch()
            except ApiError as error:
                if self._open.stopped:
                    return
                delay = self._failed(error)
            except Exception as error:  # such as a malformed object, or a handler's mistake: keep watching
                log.exception("a watch failed", what=self.what)
                self._version = ""
                delay = self._failed(ApiError(0, f"{type(error).__name__}: {error}"))
            else:
                delay = self._backoff.after_watch()
            if wait(delay):
                return

    def stop(self) -> None:
        """End a running watch. A running list ends by its own time limit."""
        self._open.stop()

    def _list(self) -> None:
        seen: set[Key] = set()
        token = ""
        while True:
            query: dict[str, Any] = {**self._query, "limit": PAGE} | ({"continue": token} if token else {})
            page = self._client.get(self._path, read=LIST_READ, **query)
            for item in page.get("items") or ():
                seen.add(_key(item))
                self._objects.put(item)
            meta = page.get("metadata") or {}
            token = meta.get("continue") or ""
            if not token:
                break
        self._objects.keep(seen)
        self._version = meta["resourceVersion"]
        self.synced.set()

    def _watch(self) -> None:
        # Each watch has a different time limit, so that they do not all restart at the same time.
        ends = round(300 * (1 + self._backoff.jitter()))
        stream = self._client.watch(
            self._path,
            read=self._silence,
            **self._query,
            resourceVersion=self._version,
            allowWatchBookmarks="true",
            timeoutSeconds=ends,
        )
        self._open.begin(stream)
        opened = self._clock()
        self._well()
        try:
            for event in stream:
                self._take(event)
        finally:
            self._open.end()
            self._backoff.watched(self._clock() - opened)

    def _take(self, event: Object) -> None:
        kind, item = event.get("type"), event.get("object") or {}
        if kind == "ERROR":
            status = ApiError(int(item.get("code") or 0), item.get("message") or "error", reason=item.get("reason", ""))
            raise status
        self._version = item["metadata"]["resourceVersion"]
        if kind == "DELETED":
            self._objects.delete(item)
        elif kind != "BOOKMARK":
            self._objects.put(item)

    def _well(self) -> None:
        if self.problem:
            log.info("in step with the API server again", what=self.what)
        self.problem = ""

    def _failed(self, error: ApiError) -> float:
        """Note an error. Returns the seconds until the next try."""
        if error.status == 410 or error.reason in ("Expired", "Gone"):
            self._version = ""
            return self._backoff.gone()
        text = str(error)
        if error.unreachable:  # the circuit breaker logs it, and sets the next try, once for all callers
            self.problem = text
            return error.retry_after
        if text != self.problem:  # logged once per problem, not once per try
            log.warning("not in step with the API server", what=self.what, detail=text, status=error.status)
        self.problem = text
        return max(self._backoff.next(), error.retry_after)


class _Objects:
    """The reported versions of the objects, so that each version is reported once. Used by one thread."""

    def __init__(self, on_object: OnObject) -> None:
        self._on_object = on_object
        self._versions: dict[Key, str] = {}

    def put(self, item: Object) -> None:
        key, version = _key(item), item["metadata"]["resourceVersion"]
        if self._versions.get(key) != version:
            self._versions[key] = version
            self._on_object("", item)

    def delete(self, item: Object) -> None:
        self._versions.pop(_key(item), None)
        self._on_object("DELETED", item)

    def keep(self, seen: set[Key]) -> None:
        """Report the deletion of known objects that a complete list does not contain."""
        for namespace, name in [key for key in self._versions if key not in seen]:
            self.delete({"metadata": {"namespace": namespace, "name": name}})


class _OpenWatch:
    """The running watch, which `stop` cuts from another thread."""

    def __init__(self) -> None:
        self.stopped = False
        self._stream: Stream | None = None
        self._lock = threading.Lock()  # guards both

    def begin(self, stream: Stream) -> None:
        with self._lock:
            self._stream = stream
            if self.stopped:
                stream.cut()

    def end(self) -> None:
        with self._lock:
            self._stream = None

    def stop(self) -> None:
        with self._lock:
            self.stopped = True
            stream = self._stream
        if stream is not None:
            stream.cut()


class _Backoff:
    """The seconds to wait before the next list or watch. Used by one thread."""

    def __init__(self, jitter: Callable[[], float]) -> None:
        self.jitter = jitter
        self._failures = 0
        self._lived = False

    def next(self) -> float:
        delay = BACKOFF[min(self._failures, len(BACKOFF) - 1)]
        self._failures += 1
        return delay * (1 + 0.1 * self.jitter())

    def gone(self) -> float:
        """The wait before a new list, after a 410."""
        self._failures = max(self._failures, _AFTER_GONE)
        return self.next()

    def watched(self, seconds: float) -> None:
        """Note that a watch ended after so many seconds."""
        self._lived = seconds >= LIVED
        if self._lived:
            self._failures = 0

    def after_watch(self) -> float:
        """The wait after a watch that the server ended."""
        return self.next() if self._failures or not self._lived else 0.0


def _key(item: Object) -> Key:
    meta = item["metadata"]
    return meta.get("namespace") or "", meta["name"]
