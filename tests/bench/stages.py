"""What each stage of an event's way costs: the server, Falcon, the receiver, the bus, a delivery, one by one."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import falcon.asgi

from bus_core import ChannelReference, Message, MessageReceiver
from bus_core.data_plane.server import ASGIApp, Connections, Limits, bind, serve_workers
from tests.bench.bare import bare
from tests.bench.fixed import fixed
from tests.bench.floor import floor
from tests.bench.hosts import HOST, host, quiet
from tests.bench.machine import Nginx, cpu, nginx, wrk
from tests.bench.report import Report, Spread, merge, ratio
from tests.support import children, free_port, request, wait_for

BODY = 256
CONNECTIONS = 16
MANY = 10


def run(rounds: int, seconds: float) -> list[Report]:
    found = []
    with contextlib.ExitStack() as stack:
        sink = stack.enter_context(nginx())
        ways: dict[str, Any] = {name: stack.enter_context(serving(name)) for name in APPS}
        ways["fixed"] = stack.enter_context(fixed())
        ways |= {f"bus {count}": stack.enter_context(host("stub", count, sink.url)) for count in (0, 1, MANY)}
        ways |= {f"floor {count}": stack.enter_context(floor(sink.port, count)) for count in (1, MANY)}
        for number in range(rounds + 1):
            figures = {"exchange": bare(sink.port, BODY, 1)}
            for name, way in ways.items():
                figures[name] = cost(way, sink, seconds)
            if number:
                found.append(figures)
    by = merge(found)
    report = Report("Where the time goes: CPU µs an event", ["stage", "with it", "it adds"])
    before = [0.0] * len(found)
    for name, what in STAGES.items():
        report.row(
            what, Spread.of(by[name]), Spread.of([now - then for now, then in zip(by[name], before, strict=True)])
        )
        before = by[name]
    further = [(many - one) / (MANY - 1) for many, one in zip(by[f"bus {MANY}"], by["bus 1"], strict=True)]
    report.row(f"each further delivery, of {MANY}", "", Spread.of(further))
    report.row("beside them: a bare exchange", Spread.of(by["exchange"]), "")
    report.row("beside them: the system calls alone, one delivery", Spread.of(by["floor 1"]), "")
    each = [cost / MANY for cost in by[f"floor {MANY}"]]
    report.row(f"beside them: the same with {MANY}, each", Spread.of(each), "")
    report.row("beside them: an asyncio server with fixed answers", Spread.of(by["fixed"]), "")
    report.at_most("the server: CPU, of an asyncio server's with fixed answers", ratio(by["raw"], by["fixed"]), 2.3)
    return [report]


STAGES = {
    "raw": "the server with an application of a few lines",
    "falcon": "Falcon",
    "receiver": "MessageReceiver: headers, bounds, metrics",
    "bus 0": "bus and stub driver, no subscription",
    "bus 1": "the delivery to one subscription",
}


def cost(way: Any, sink: Nginx, seconds: float) -> float:
    """Microseconds of CPU for each event that was accepted."""
    quiet(sink.count)
    pids = way.worker_pids()
    used = cpu(pids)
    load = wrk(way.events, HOST, seconds=seconds, connections=CONNECTIONS, body=BODY)
    quiet(sink.count)
    return (cpu(pids) - used) / load.accepted * 1e6


async def _raw(scope: Any, receive: Any, send: Any) -> None:
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 202, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body"})


def _falcon() -> ASGIApp:
    class Resource:
        async def on_post(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
            await req.stream.read()
            resp.status = falcon.HTTP_202

    app: Any = falcon.asgi.App()
    app.add_route("/", Resource())
    return app  # type: ignore[no-any-return]


def _receiver() -> ASGIApp:
    async def take(channel: ChannelReference, message: Message) -> None:
        """Nothing more is measured here."""

    return MessageReceiver(take).asgi


APPS = {"raw": lambda: _raw, "falcon": _falcon, "receiver": _receiver}


class _Service:
    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    def app_at(self, address: tuple[str, int]) -> ASGIApp:
        return self._app

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Nothing to start."""

    async def stop(self, connections: Connections) -> None:
        connections.close_idle()


class Serving:
    """One of `APPS` as a process of its own, under the same server as the bus.

    Args:
        name: which.
        checkout: the folder of the code, which holds its own `.venv`; "" for this one.
    """

    def __init__(self, name: str, checkout: str = "") -> None:
        self.events = f"127.0.0.1:{free_port()}"
        python = str(Path(checkout) / ".venv/bin/python") if checkout else sys.executable
        command = [python, "-m", "tests.bench.stages", name, self.events]
        self.process = subprocess.Popen(command, cwd=checkout or None)

    def worker_pids(self) -> list[int]:
        return children(self.process.pid)

    def answers(self) -> bool:
        with contextlib.suppress(OSError):
            return request(self.events, host=HOST, body=b"x").status == 202
        return False


@contextlib.contextmanager
def serving(name: str, checkout: str = "") -> Iterator[Serving]:
    process = Serving(name, checkout)
    try:
        wait_for(process.answers, 20, f"{name} answers")
        yield process
    finally:
        process.process.terminate()
        process.process.wait(20)


def _main(name: str, address: str) -> int:
    with bind(address) as listener:
        service = _Service(APPS[name]())
        return serve_workers(
            lambda: service, [listener], workers=1, limits=Limits(graceful_timeout=1.0), on_worker_exit=lambda pid: None
        )


if __name__ == "__main__":
    os._exit(_main(sys.argv[1], sys.argv[2]))
