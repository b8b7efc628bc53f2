"""Request targets that are no plain path (RFC 9112, section 3.2)."""

from __future__ import annotations

from bus_core.data_plane.server.service import Scope

_SCHEMES = ("http", "https")


def to_origin_form(scope: Scope) -> None:
    """Make an ASGI scope's target a path. Of an absolute one the authority becomes the Host header, whatever the sender
    wrote there (section 3.2.2); `*` and an authority alone become paths that nobody has."""
    scheme, separator, rest = scope["path"].partition("://")
    if not separator or scheme.lower() not in _SCHEMES:
        scope["path"] = f"/{scope['path']}"
        scope["raw_path"] = b"/" + scope["raw_path"]
        return
    authority, slash, path = rest.partition("/")
    raw = scope["raw_path"].partition(b"://")[2].partition(b"/")
    scope["path"], scope["raw_path"] = f"/{path}" if slash else "/", b"/" + raw[2]
    host = authority.rpartition("@")[2].encode("latin-1")
    scope["headers"] = [(b"host", host), *(field for field in scope["headers"] if field[0] != b"host")]
