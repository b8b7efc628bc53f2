"""Admin: health and metrics over HTTP. It only reads, through callables."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import falcon
import falcon.asgi

_PATHS = ("/livez", "/readyz", "/metrics")


class AdminApp:
    """`/livez`, `/readyz` and `/metrics` as an ASGI application.

    Args:
        ready: returns the problems that keep this worker from serving; empty means ready.
        metrics: returns the exposition of all workers, and its content type.
    """

    def __init__(self, *, ready: Callable[[], Sequence[str]], metrics: Callable[[], tuple[bytes, str]]) -> None:
        self._ready = ready
        self._metrics = metrics
        app: Any = falcon.asgi.App()
        for path, answer in zip(_PATHS, (self._answer_live, self._answer_ready, self._answer_metrics), strict=True):
            app.add_route(path, _Resource(answer))
        app.add_sink(_elsewhere, "/")
        app.set_error_serializer(_write_error)
        self.asgi: Any = app

    async def _answer_live(self, resp: falcon.asgi.Response) -> None:
        resp.text = "ok\n"

    async def _answer_ready(self, resp: falcon.asgi.Response) -> None:
        problems = self._ready()
        resp.status = falcon.HTTP_503 if problems else falcon.HTTP_200
        resp.text = "".join(f"{problem}\n" for problem in problems) or "ok\n"

    async def _answer_metrics(self, resp: falcon.asgi.Response) -> None:
        # Not on the event loop: adding up thousands of series of several workers takes a tenth of a second.
        resp.data, resp.content_type = await asyncio.to_thread(self._metrics)


class _Resource:
    """One path, with GET and HEAD."""

    def __init__(self, answer: Callable[[falcon.asgi.Response], Any]) -> None:
        self._answer = answer

    async def on_get(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        resp.content_type = "text/plain; charset=utf-8"
        await self._answer(resp)

    on_head = on_get


async def _elsewhere(req: falcon.asgi.Request, resp: falcon.asgi.Response, **_: Any) -> None:
    resp.status = falcon.HTTP_404
    resp.content_type = "text/plain; charset=utf-8"
    resp.text = f"not found; the paths are {', '.join(_PATHS)}\n"


def _write_error(req: falcon.asgi.Request, resp: falcon.asgi.Response, error: falcon.HTTPError) -> None:
    """Answer Falcon's errors, such as 405, as text. Falcon sets their headers, such as Allow."""
    resp.content_type = "text/plain; charset=utf-8"
    resp.text = f"{error.title}: read {', '.join(_PATHS)} with GET\n"
