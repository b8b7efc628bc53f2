"""Keeps one kind of object in step with the API server: list, then watch, then watch again from where it broke off.

The rules are those of the Kubernetes API concepts page: a list in pages, a watch with bookmarks from its
resourceVersion, 410 (Gone, or the status Expired in a watch) means a new list. A new list is compared with what was
known: what is equal is not reported, what is missing was deleted.
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
"""Seconds between two tries that fail, the last one from then on: nine tries in the first minute."""

_AFTER_GONE = 2  # where a 410 starts in BACKOFF: a list and a watch are two requests

LIVED = 5.0
"""Seconds from which on a watch counts as one that worked: what ends sooner does not start the back-off anew."""

SILENCE = 70.0
"""Seconds without a byte until a watch counts as lost; the server sends a bookmark about every minute."""

PAGE = 500

log = get_logger(__name__)

Key = tuple[str, str]  # namespace, name
OnObject = Callable[[str, Object], None]  # "" or "DELETED", and the object


class Reflector:
    """One kind in one namespace, or in all. `run` on a thread of its own; all else from any thread.

    Args:
        what: for people, such as `channels in default`.
        path: of the list.
        on_object: called for each object that is new or changed, and for each that is gone. Must not block.
        query: further parameters of list and watch, such as a field selector.
        silence: seconds without a byte until a watch counts as lost.
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
        self._on_object = on_object
        self._query = query or {}
        self._silence = silence
        self._clock = clock
        self._jitter = jitter
        self._known: dict[Key, str] = {}
        self._version = ""
        self._failures = 0
        self._lived = False
        self._stream: Stream | None = None
        self._lock = threading.Lock()
        self._stopped = False

    def run(self, wait: Callable[[float], bool]) -> None:
        """List and watch until `wait` says that it is time to stop."""
        while not self._stopped:
            try:
                if not self._version:
                    self._list()
                self._watch()
            except ApiError as error:
                if self._stopped:
                    return
                delay = self._failed(error)
            except Exception as error:  # an object that is none, or a handler's mistake: never the end of the watch
                log.exception("a watch failed", what=self.what)
                self._version = ""
                delay = self._failed(ApiError(0, f"{type(error).__name__}: {error}"))
            else:
                delay = self._next_delay() if self._failures or not self._lived else 0.0
            if wait(delay):
                return

    def stop(self) -> None:
        """End a watch under way. A list under way ends by its own time limit."""
        self._stopped = True
        with self._lock:
            stream = self._stream
        if stream is not None:
            stream.cut()

    def _list(self) -> None:
        seen: dict[Key, str] = {}
        token = ""
        while True:
            query: dict[str, Any] = {**self._query, "limit": PAGE} | ({"continue": token} if token else {})
            page = self._client.get(self._path, read=LIST_READ, **query)
            for item in page.get("items") or ():
                key = _key(item)
                seen[key] = item["metadata"]["resourceVersion"]
                self._tell(key, item)
            meta = page.get("metadata") or {}
            token = meta.get("continue") or ""
            if not token:
                break
        for key in [key for key in self._known if key not in seen]:
            self._forget(key)
        self._version = meta["resourceVersion"]
        self.synced.set()

    def _watch(self) -> None:
        # The server ends it after a while that differs from watch to watch, so that they do not all come back at once.
        ends = round(300 + 300 * self._jitter())
        stream = self._client.watch(
            self._path,
            read=self._silence,
            **self._query,
            resourceVersion=self._version,
            allowWatchBookmarks="true",
            timeoutSeconds=ends,
        )
        with self._lock:
            self._stream = stream
            if self._stopped:
                stream.cut()
        opened, self._lived = self._clock(), False
        self._well()
        try:
            for event in stream:
                self._take(event)
        finally:
            with self._lock:
                self._stream = None
            self._lived = self._clock() - opened >= LIVED
            if self._lived:
                self._failures = 0

    def _take(self, event: Object) -> None:
        kind, item = event.get("type"), event.get("object") or {}
        if kind == "ERROR":
            status = ApiError(int(item.get("code") or 0), item.get("message") or "error", reason=item.get("reason", ""))
            raise status
        self._version = item["metadata"]["resourceVersion"]
        if kind == "DELETED":
            self._known.pop(_key(item), None)
            self._on_object("DELETED", item)
        elif kind != "BOOKMARK":
            self._tell(_key(item), item)

    def _tell(self, key: Key, item: Object) -> None:
        version = item["metadata"]["resourceVersion"]
        if self._known.get(key) != version:
            self._known[key] = version
            self._on_object("", item)

    def _forget(self, key: Key) -> None:
        del self._known[key]
        namespace, name = key
        self._on_object("DELETED", {"metadata": {"namespace": namespace, "name": name}})

    def _well(self) -> None:
        if self.problem:
            log.info("the API server answers again", what=self.what)
        self.problem = ""

    def _failed(self, error: ApiError) -> float:
        """Note what went wrong; the seconds until the next try."""
        if error.status == 410 or error.reason in ("Expired", "Gone"):
            self._version = ""
            self._failures = max(self._failures, _AFTER_GONE)
            return self._next_delay()
        text = str(error)
        if text != self.problem:  # once for each kind of trouble, not once for each try
            log.warning("not in step with the API server", what=self.what, detail=text, status=error.status)
        self.problem = text
        return max(self._next_delay(), error.retry_after)

    def _next_delay(self) -> float:
        delay = BACKOFF[min(self._failures, len(BACKOFF) - 1)]
        self._failures += 1
        return delay * (1 + 0.1 * self._jitter())


def _key(item: Object) -> Key:
    meta = item["metadata"]
    return meta.get("namespace") or "", meta["name"]
