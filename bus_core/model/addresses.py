"""Model, addresses: a socket's address as text."""

from __future__ import annotations


def format_address(address: tuple[str, int]) -> str:
    """`HOST:PORT`, with an IPv6 host in brackets: `127.0.0.1:8080`, `[::1]:8080` (RFC 3986, section 3.2.2)."""
    host, port = address
    return f"{bracket(host)}:{port}"


def bracket(host: str) -> str:
    """Put an IPv6 address in brackets; return any other host unchanged."""
    return f"[{host}]" if ":" in host else host
