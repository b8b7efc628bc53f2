"""An API server's answers, one after the other, below the client's transport."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any


class Response:
    """The part of urllib3's response that the client uses. A watch ends after its events."""

    def __init__(self, status: int = 200, body: Any = None, *, lines: list[Any] | None = None, **headers: str) -> None:
        self.status = status
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}
        self.data = json.dumps(body or {}).encode()
        self._pieces = [json.dumps(line).encode() + b"\n" for line in lines or ()]

    def read1(self, amt: int) -> bytes:
        return self._pieces.pop(0) if self._pieces else b""

    def shutdown(self) -> None:
        self._pieces.clear()

    def close(self) -> None:
        pass

    def release_conn(self) -> None:
        pass


class Script:
    """A transport that answers each request with the next of a list; an exception is raised."""

    def __init__(self, *answers: Response | Exception | Callable[[], Response]) -> None:
        self.answers = list(answers)
        self.requests: list[tuple[str, str]] = []
        self.bodies: list[Any] = []

    def __call__(
        self, method: str, path: str, headers: Mapping[str, str], body: bytes | None, connect: float, read: float
    ) -> Any:
        self.requests.append((method, path))
        self.bodies.append(json.loads(body) if body else None)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer if isinstance(answer, Response) else answer()


def item(name: str, version: int, namespace: str = "default") -> dict[str, Any]:
    return {"metadata": {"name": name, "namespace": namespace, "resourceVersion": str(version), "uid": f"u-{name}"}}


def page(*items: dict[str, Any], version: int = 1, token: str = "") -> Response:
    return Response(body={"items": list(items), "metadata": {"resourceVersion": str(version), "continue": token}})


def event(kind: str, obj: dict[str, Any]) -> dict[str, Any]:
    return {"type": kind, "object": obj}
