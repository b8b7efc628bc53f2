"""What counts as a destination, and what becomes of it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bus_core.model.destination import (
    Destination,
    is_localhost,
    is_single_label,
    masked,
    parse_destination,
    parse_sink,
)
from bus_core.model.errors import DestinationError
from bus_core.model.references import ChannelReference


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("orders", "http orders.shop.svc.cluster.local 80 / orders.shop.svc.cluster.local"),
        ("Orders", "http orders.shop.svc.cluster.local 80 / orders.shop.svc.cluster.local"),
        ("orders:8080", "http orders.shop.svc.cluster.local 8080 / orders.shop.svc.cluster.local:8080"),
        ("orders.other", "http orders.other 80 / orders.other"),
        (
            "orders.other.svc.cluster.local.",
            "http orders.other.svc.cluster.local. 80 / orders.other.svc.cluster.local.",
        ),
        ("a_b-c.example", "http a_b-c.example 80 / a_b-c.example"),
        ("localhost", "http localhost 80 / localhost"),
        ("LocalHost:8080", "http localhost 8080 / localhost:8080"),
        ("orders.shop.localhost:8080", "http orders.shop.localhost 8080 / orders.shop.localhost:8080"),
        ("127.0.0.1:8080", "http 127.0.0.1 8080 / 127.0.0.1:8080"),
        ("[::1]", "http ::1 80 / [::1]"),
        ("[::1]:8080", "http ::1 8080 / [::1]:8080"),
        ("http://orders", "http orders 80 / orders"),
        ("HTTP://Orders:80/Path", "http orders 80 /Path orders"),
        ("https://orders:443", "https orders 443 / orders"),
        ("https://orders:80", "https orders 80 / orders:80"),
        ("http://h?q=a/b?c", "http h 80 /?q=a/b?c h"),
        ("http://h/a//b/../c%20d;e?x=1&y=%C3%A4", "http h 80 /a//b/../c%20d;e?x=1&y=%C3%A4 h"),
        ("http://h/a@b:c", "http h 80 /a@b:c h"),
        ("http://[2001:DB8::1]:8080/x", "http 2001:db8::1 8080 /x [2001:db8::1]:8080"),
        ("https://xn--bcher-kva.example/", "https xn--bcher-kva.example 443 / xn--bcher-kva.example"),
    ],
)
def test_a_destination_is_read(text: str, expected: str) -> None:
    scheme, host, port, target, authority = expected.split(" ")
    assert parse_destination(text, "shop") == Destination(scheme, host, int(port), target, authority)


def test_a_missing_namespace_is_default() -> None:
    assert parse_destination("orders").host == "orders.default.svc.cluster.local"
    assert parse_destination("orders", "").host == "orders.default.svc.cluster.local"


def test_the_url_is_what_the_receiver_sees() -> None:
    assert parse_destination("orders:81", "shop").url == "http://orders.shop.svc.cluster.local:81/"
    assert parse_destination("https://[::1]/a?b").url == "https://[::1]/a?b"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "is empty"),
        ("orders/path", "http://"),
        ("orders?x", "http://"),
        ("ftp://orders/", "scheme"),
        ("://orders", "scheme"),
        ("http://", "has no host"),
        ("http:///path", "has no host"),
        ("http://:80/", "has no host"),
        ("http://h/#part", "fragment"),
        ("orders#part", "fragment"),
        ("http://user:secret@h/", "user information"),
        ("user@h", "user information"),
        ("http://h:0/", "port"),
        ("http://h:65536/", "port"),
        ("http://h:/", "port"),
        ("http://h:-1/", "port"),
        ("h:http", "port"),
        ("::1", "brackets"),
        ("http://[::1/", "unfinished"),
        ("http://[::1]x/", "unfinished"),
        ("http://[]/", "unfinished"),
        ("http://[:::1]/", "IPv6"),
        ("http://[fe80::1%25eth0]/", "IPv6"),
        ("http://[fe80::1%eth0]/", "zone"),
        ("256.1.1.1", "IPv4"),
        ("127.1", "IPv4"),
        ("a..b", "DNS name"),
        (".a", "DNS name"),
        ("-a.b", "DNS name"),
        ("a-.b", "DNS name"),
        ("a" * 64 + ".b", "DNS name"),
        ("a.b*c", "DNS name"),
        ("http://a\\b/", "DNS name"),
        (".".join(["a" * 60] * 5), "DNS name"),
        ("orders default", "space"),
        ("http://h/a b", "space"),
        ("http://h/\r\nx: y", "control"),
        ("h\0", "control"),
        ("http://bücher.example/", "ASCII"),
    ],
)
def test_a_mistake_is_one_sentence(text: str, problem: str) -> None:
    with pytest.raises(DestinationError, match=problem) as caught:
        parse_destination(text)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    "text", ["http://user:secret@h/", "user:secret@h", "ftp://user:secret@h/", "http://user:secret@h/#f"]
)
def test_a_password_is_never_shown(text: str) -> None:
    with pytest.raises(DestinationError) as caught:
        parse_destination(text)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("orders", "orders"),
        ("http://h:8080/a/b@c", "http://h:8080/a/b@c"),
        ("https://api.example/hook?token=secret", "https://api.example/hook?token=***"),
        ("https://api.example:8443/hook?a=secret&b=&c=x=y", "https://api.example:8443/hook?a=***&b=***&c=***"),
        ("https://api.example?secret", "https://api.example?***"),
        ("https://api.example/?", "https://api.example/?"),
        ("https://api.example/?a=secret/b?c=secret@d", "https://api.example/?a=***"),
        ("https://user:secret@api.example/hook", "https://***@api.example/hook"),
        ("user:secret@h", "***@h"),
        ("https://h/p#secret", "https://h/p#***"),
    ],
)
def test_what_may_be_a_secret_is_masked(text: str, shown: str) -> None:
    assert masked(text) == shown


@pytest.mark.parametrize(
    "text",
    [
        "http://h:none/?token=secret",
        "h?token=secret",
        "http://user:se?secret@h/",
        "http://user:pa/secret@h/",
        "http://h:0/?mail=a@secret&token=secret",
        "http://user:x@h/?token=secret#secret",
        "ftp://h?secret",
    ],
)
def test_an_error_shows_no_secret_of_a_refused_destination(text: str) -> None:
    with pytest.raises(DestinationError) as caught:
        parse_destination(text)
    assert "secret" not in str(caught.value)


def test_an_error_shows_no_secret_of_a_refused_sink() -> None:
    with pytest.raises(DestinationError, match=r"channel .* itself") as caught:
        parse_sink("http://orders.shop/?token=secret", ChannelReference("orders", "shop"))
    assert "secret" not in str(caught.value)


def test_a_namespace_that_is_no_name_is_refused() -> None:
    with pytest.raises(DestinationError):
        parse_destination("orders", "no/name")


@given(st.one_of(st.text(), st.text("ahtps:/.[]@#?%1_- \r\n\\", max_size=30)), st.text(max_size=10))
def test_any_text_is_read_or_refused(text: str, namespace: str) -> None:
    try:
        found = parse_destination(text, namespace)
    except DestinationError:
        return
    assert found.scheme in ("http", "https")
    assert 0 < found.port < 65536
    assert found.target.startswith("/")
    assert f"{found.target}{found.authority}".isprintable()
    assert " " not in f"{found.target}{found.authority}"
    # What is sent as the Host header means the same destination again.
    assert parse_destination(found.url) == found


@pytest.mark.parametrize(("name", "single"), [("orders", True), ("a-b", True), ("", False), ("localhost", False)])
def test_single_labels(name: str, single: bool) -> None:
    assert is_single_label(name) is single
    for more in (".default", ":80", "/x", "?x"):
        assert not is_single_label(name + more)


@pytest.mark.parametrize(
    ("name", "local"),
    [
        ("localhost", True),
        ("a.b.localhost", True),
        ("a.localhost.", True),
        ("notlocalhost", False),
        ("localhost.a", False),
    ],
)
def test_names_of_this_machine(name: str, local: bool) -> None:
    assert is_localhost(name) is local
