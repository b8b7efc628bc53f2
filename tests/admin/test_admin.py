"""The admin application: each of its answers is plain text."""

from __future__ import annotations

import pytest

from bus_core.admin import AdminApp
from tests.receiver.test_mounted import serving
from tests.support import request


@pytest.mark.parametrize(
    ("method", "path", "status", "says"),
    [
        ("GET", "/livez", 200, "ok"),
        ("GET", "/readyz", 503, "not yet"),
        ("GET", "/metrics", 200, "bus_x 1"),
        ("GET", "/elsewhere", 404, "/livez, /readyz, /metrics"),
        ("POST", "/elsewhere", 404, "/livez, /readyz, /metrics"),
        ("POST", "/livez", 405, "with GET"),
        ("DELETE", "/metrics", 405, "with GET"),
    ],
)
def test_every_answer_is_text(method: str, path: str, status: int, says: str) -> None:
    app = AdminApp(ready=lambda: ["not yet"], metrics=lambda: (b"bus_x 1\n", "text/plain; version=0.0.4"))
    with serving(app.asgi) as address:
        answer = request(address, method, path, body=None)
    assert answer.status == status
    assert says in answer.text
    assert answer.headers["content-type"].startswith("text/plain")
    if status == 405:
        assert {"GET", "HEAD"} <= {name.strip() for name in answer.headers["allow"].split(",")}
