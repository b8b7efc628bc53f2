"""Server: the four forms of a request target (RFC 9112, section 3.2). No network."""

from __future__ import annotations

from typing import NamedTuple
from urllib.parse import unquote

from bus_core.data_plane.server.head import RefusedError

_SCHEMES = (b"http", b"https")


class Target(NamedTuple):
    """The parts of a target that ASGI names.

    Attributes:
        path: the path with its percent-encoding undone.
        raw_path: the path as it was sent.
        query: the part after the question mark.
        host: the authority of an absolute target, which replaces the Host header (section 3.2.2); else None.
    """

    path: str
    raw_path: bytes
    query: bytes
    host: bytes | None


ROOT = Target("/", b"/", b"", None)


def split_target(method: bytes, target: bytes) -> Target:
    """Split a request target that consists of visible ASCII characters.

    Of `*` and of an authority alone it makes paths that no application has, for example `/*`.

    Raises:
        RefusedError: the target has none of the four forms, or one that its method does not allow.
    """
    host = None
    if method == b"CONNECT":
        target = b"/" + target.removeprefix(b"/")
    elif target == b"*" and method == b"OPTIONS":
        target = b"/*"
    elif not target.startswith(b"/"):
        scheme, separator, rest = target.partition(b"://")
        if not separator or scheme.lower() not in _SCHEMES:
            raise RefusedError(400, "the request target is neither a path nor an http URL")
        end = min((at for at in (rest.find(b"/"), rest.find(b"?")) if at >= 0), default=len(rest))
        host = rest[:end].rpartition(b"@")[2]
        target = rest[end:] if rest[end:].startswith(b"/") else b"/" + rest[end:]
    raw_path, _, query = target.partition(b"?")
    path = raw_path.decode("ascii")
    return Target(unquote(path) if "%" in path else path, raw_path, query, host)
