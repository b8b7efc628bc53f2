"""Model: a destination, a DNS name (NAME, NAME.NAMESPACE, with or without :PORT) or an http(s) URL. No network."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from functools import lru_cache

from bus_core.model.addresses import bracket
from bus_core.model.errors import DestinationError, InvalidMessageError
from bus_core.model.references import DEFAULT_NAMESPACE, MAX_HOST_LENGTH, ChannelReference

CLUSTER_SUFFIX = "svc.cluster.local"
DEFAULT_PORTS = {"http": 80, "https": 443}

_HIDDEN = "***"
_MAY_HIDE = re.compile(r"[?#@]")
_AUTHORITY_END = re.compile(r"[/?]")
_LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)")
_PORT = re.compile(r"[0-9]{1,5}")


@dataclass(frozen=True, slots=True)
class Destination:
    """Where a request goes.

    Attributes:
        scheme: `http` or `https`.
        host: the host to connect to, a DNS name in lower case or an IP address (IPv6 without brackets).
        port: 1 to 65535.
        target: path and query, as in the request line.
        authority: the Host header. IPv6 has brackets, and the default port of the scheme is left out.
    """

    scheme: str
    host: str
    port: int
    target: str
    authority: str

    @property
    def url(self) -> str:
        """The target URI as the receiver of the request sees it (RFC 9110, section 7.1)."""
        return f"{self.scheme}://{self.authority}{self.target}"


@lru_cache(maxsize=1024)
def parse_destination(text: str, namespace: str = DEFAULT_NAMESPACE) -> Destination:
    """Read a destination. A single-label name becomes NAME.NAMESPACE.svc.cluster.local; a URL is not changed.

    Raises:
        DestinationError: the text is neither a DNS name nor an http(s) URL, or has user information or a fragment.
    """
    if not text:
        raise DestinationError("the destination is empty: write a DNS name or an http(s) URL")
    if not (text.isascii() and text.isprintable()) or " " in text:
        raise DestinationError(
            f"the destination {_shown(text)} contains a space, a control character or a non-ASCII letter:"
            " write them percent-encoded, and a host name in its xn-- form"
        )
    if "#" in text:
        raise _refused(text, "has a fragment (#), which HTTP never sends: remove it")
    scheme, separator, rest = text.partition("://")
    if not separator:
        scheme, rest = "http", text
    scheme = scheme.lower()
    if scheme not in DEFAULT_PORTS:
        raise _refused(text, "has a scheme other than http and https")
    authority = _AUTHORITY_END.split(rest, maxsplit=1)[0]
    target = rest[len(authority) :]
    if "@" in authority:
        raise _refused(text, "contains user information (USER@HOST), which is not supported: remove it")
    if not separator and target:
        raise _refused(text, "is not a DNS name; for a URL, write http:// before it")
    host, port = _split(text, authority, scheme)
    if not separator and is_single_label(host):
        host = f"{host}.{namespace or DEFAULT_NAMESPACE}.{CLUSTER_SUFFIX}".lower()
    _check_host(text, host)
    shown_host = bracket(host)
    shown_port = "" if port == DEFAULT_PORTS[scheme] else f":{port}"
    return Destination(
        scheme, host, port, target if target.startswith("/") else f"/{target}", f"{shown_host}{shown_port}"
    )


def masked(destination: str) -> str:
    """Hide the parts of a destination that may be secrets, for logs, errors, conditions and dead letters.

    Example: `https://api.example/hook?token=secret` becomes `https://api.example/hook?token=***`. Hidden are the values
    in the query, a part of the query without a name, the fragment and user information.
    """
    if not _MAY_HIDE.search(destination):
        return destination
    head, hash_mark, _ = destination.partition("#")
    head, question_mark, query = head.partition("?")
    scheme, separator, rest = head.partition("://")
    if not separator:
        scheme, rest = "", head
    authority = rest.partition("/")[0]
    _, at, host = authority.rpartition("@")
    user = _HIDDEN if at else ""
    shown = f"{scheme}{separator}{user}{at}{host}{rest[len(authority) :]}"
    if question_mark:
        shown += "?" + "&".join(_masked_parameter(part) for part in query.split("&"))
    return shown + (f"#{_HIDDEN}" if hash_mark else "")


def parse_sink(text: str, channel: ChannelReference) -> Destination:
    """Read the dead-letter sink of a channel's events.

    Raises:
        DestinationError: the text is not a destination, or names the channel itself.
    """
    sink = parse_destination(text, channel.namespace)
    try:
        leads_back = ChannelReference.from_host(sink.authority) == channel
    except InvalidMessageError:
        leads_back = False
    if leads_back:
        raise DestinationError(
            f"deadLetterSink {_shown(text)} is the channel {channel} itself: its dead letters would return to it; "
            "name another channel or an address outside the bus"
        )
    return sink


def is_single_label(name: str) -> bool:
    """Whether a name needs a namespace: it has no dot and no port, and is neither an address nor `localhost`."""
    return not any(character in name for character in ".:[/?#@") and bool(name) and name.lower() != "localhost"


def is_localhost(host: str) -> bool:
    """Whether a name always means this machine: `localhost` or `*.localhost` (RFC 6761, section 6.3)."""
    name = host.rstrip(".")
    return name == "localhost" or name.endswith(".localhost")


def _split(text: str, authority: str, scheme: str) -> tuple[str, int]:
    """Split an authority into the host, in lower case, and the port."""
    if authority.startswith("["):
        host, bracket, rest = authority[1:].partition("]")
        colon, port = rest[:1], rest[1:]
        if not bracket or colon not in ("", ":") or ":" not in host:
            raise _refused(text, "has an unfinished IPv6 address: write [::1] or [::1]:8080")
    else:
        host, colon, port = authority.partition(":")
        if ":" in port:
            raise _refused(text, "has more than one colon: write an IPv6 address in brackets, such as [::1]:8080")
    if not host:
        raise _refused(text, "has no host")
    if not colon:
        return host.lower(), DEFAULT_PORTS[scheme]
    if not _PORT.fullmatch(port) or not 0 < int(port) < 65536:
        raise _refused(text, "has a port that is not a number from 1 to 65535")
    return host.lower(), int(port)


def _check_host(text: str, host: str) -> None:
    if ":" in host:
        try:
            ipaddress.IPv6Address(host)
        except ValueError:
            raise _refused(text, "has an invalid IPv6 address between its brackets") from None
        if "%" in host:
            raise _refused(text, "has an IPv6 zone, which is not supported")
        return
    labels = host.removesuffix(".").split(".")
    if len(host) > MAX_HOST_LENGTH or not all(_LABEL.fullmatch(label) for label in labels):
        raise _refused(text, "is neither a DNS name nor an http(s) URL")
    if labels[-1].isdigit():
        # Resolvers accept unusual forms of addresses, such as 127.1 or 0177.0.0.1. Only the plain form is allowed here.
        try:
            ipaddress.IPv4Address(host)
        except ValueError:
            raise _refused(text, "ends in a number but is not an IPv4 address") from None


def _masked_parameter(part: str) -> str:
    name, equals, _ = part.partition("=")
    return f"{name}={_HIDDEN}" if equals else _HIDDEN if part else ""


def _refused(text: str, problem: str) -> DestinationError:
    return DestinationError(f"the destination {_shown(text)} {problem}")


def _shown(text: str) -> str:
    """An invalid destination for an error message: shortened, and without anything that may be a password."""
    scheme, separator, rest = text.partition("://")
    if not separator:
        scheme, rest = "", text
    head, _, query = rest.partition("?")
    if "@" in head:
        text = f"{scheme}{separator}{_HIDDEN}@{head.rpartition('@')[2]}{rest[len(head) :]}"
    elif "@" in query and "/" not in head:  # the question mark may be a part of a password
        text = f"{scheme}{separator}{_HIDDEN}"
    text = masked(text)
    return repr(text if len(text) <= 100 else f"{text[:100]}...")
