"""What a Python user would write: gunicorn's threads, a Falcon WSGI application, urllib3. To beat, not to copy.

It delivers before it answers, so nothing that it answered 202 is lost, and its senders feel the subscriber's pace.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import falcon
import urllib3

from tests.support import children, free_port, request, wait_for

THREADS = 16


class Channel:
    def __init__(self, subscribers: list[str]) -> None:
        self.subscribers = subscribers
        self.http = urllib3.PoolManager(maxsize=THREADS)

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        body = req.bounded_stream.read()
        headers = {name.lower(): value for name, value in req.headers.items() if name.lower() == "content-type"}
        for subscriber in self.subscribers:
            answer = self.http.request("POST", subscriber, body=body, headers=headers)
            if answer.status >= 300:
                raise falcon.HTTPBadGateway
        resp.status = falcon.HTTP_202


def application() -> Any:
    app = falcon.App()
    app.add_route("/", Channel(os.environ["SUBSCRIBERS"].split(",")))
    return app


class Process:
    """It, running."""

    def __init__(self, subscribers: list[str]) -> None:
        self.events = f"127.0.0.1:{free_port()}"
        command = [sys.executable, "-m", "gunicorn", "--bind", self.events, "--worker-class", "gthread"]
        command += [
            "--threads",
            str(THREADS),
            "--log-level",
            "error",
            "--no-control-socket",
            "tests.bench.plain:application()",
        ]
        env = {**os.environ, "SUBSCRIBERS": ",".join(subscribers)}
        self._process = subprocess.Popen(command, env=env, stderr=subprocess.DEVNULL)

    def worker_pids(self) -> list[int]:
        return children(self._process.pid)

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(20)

    def answers(self) -> bool:
        with contextlib.suppress(OSError):
            return request(self.events, "GET", body=None).status > 0
        return False


@contextlib.contextmanager
def plain(subscribers: list[str]) -> Iterator[Process]:
    process = Process(subscribers)
    try:
        wait_for(process.answers, 20, "the plain stack answers")
        yield process
    finally:
        process.stop()
