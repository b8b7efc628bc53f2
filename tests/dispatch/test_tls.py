"""HTTPS: certificates are checked, and the deadline and the bounds hold as they do without TLS."""

from __future__ import annotations

import shutil
import socket
import ssl
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from bus_core.data_plane.dispatch import MessageDispatcher
from bus_core.model.errors import DeadlineError, DispatchError
from bus_core.model.message import Message
from tests.dispatch.servers import ACCEPTED, Conversation, answering, answering_once, echo, serving

pytestmark = pytest.mark.skipif(not shutil.which("openssl"), reason="the openssl command makes the certificates")

EVENT = Message({"ce-id": "1"}, b"payload")


@dataclass(frozen=True)
class Authority:
    """An authority of our own, and a server's certificate for `localhost` from it."""

    path: Path
    context: ssl.SSLContext


def make_authority(folder: Path) -> Authority:
    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True, timeout=20)

    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    # From 3.13 on Python wants of an authority what RFC 5280, section 4.2.1.3, says that it has to have.
    signs = ("-addext", "keyUsage=critical,keyCertSign,cRLSign")
    authority = ("-subj", "/CN=test authority", "-days", "2", "-keyout", "ca.key", "-out", "ca.pem")
    openssl("req", "-x509", *key, *signs, *authority)
    openssl("req", *key, "-subj", "/CN=localhost", "-keyout", "server.key", "-out", "server.csr")
    (folder / "names").write_text(
        "subjectAltName=DNS:localhost,DNS:*.default.localhost\nauthorityKeyIdentifier=keyid\n"
    )
    openssl(
        *("x509", "-req", "-in", "server.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial"),
        *("-days", "2", "-extfile", "names", "-out", "server.pem"),
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.pem", folder / "server.key")
    return Authority(folder / "ca.pem", context)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return make_authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def dispatcher(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> MessageDispatcher:
    """It trusts the authority, as a system does whose trust store holds it."""
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.path))
    return MessageDispatcher(timeout=5, max_reply_bytes=4_000_000)


@pytest.mark.parametrize("name", ["localhost", "orders.default.localhost"])
def test_a_trusted_subscriber(dispatcher: MessageDispatcher, authority: Authority, name: str) -> None:
    with serving(answering(ACCEPTED), tls=authority.context) as server:
        route = dispatcher.route(f"https://{name}:{server.port}/")
        for _ in range(4):
            assert dispatcher.send(route, EVENT).status == 202
        assert server.connections == 1
        assert server.requests[0].header("host") == f"{name}:{server.port}"


def test_large_payloads_and_replies(dispatcher: MessageDispatcher, authority: Authority) -> None:
    payload = bytes(range(256)) * 12_000
    with serving(echo, tls=authority.context) as server:
        for _ in range(2):
            reply = dispatcher.send(dispatcher.route(f"https://localhost:{server.port}/"), Message({}, payload))
            assert reply.body == payload
        assert server.connections == 1


def test_a_closed_connection_is_replaced(dispatcher: MessageDispatcher, authority: Authority) -> None:
    with serving(answering_once(b"HTTP/1.1 200 OK\r\n\r\nhello"), tls=authority.context) as server:
        for _ in range(2):
            assert dispatcher.send(dispatcher.route(f"https://localhost:{server.port}/"), EVENT).body == b"hello"


def test_a_stranger_is_refused(dispatcher: MessageDispatcher, tmp_path: Path) -> None:
    with serving(answering(ACCEPTED), tls=make_authority(tmp_path).context) as server:
        url = f"https://localhost:{server.port}/"
        with pytest.raises(
            DispatchError, match=f"^{url} has a certificate that is not trusted: .*SSL_CERT_FILE"
        ) as caught:
            dispatcher.send(dispatcher.route(url), EVENT)
        assert len(str(caught.value).splitlines()) == 1
        assert not server.requests


def test_a_certificate_for_another_name_is_refused(dispatcher: MessageDispatcher, authority: Authority) -> None:
    with serving(answering(ACCEPTED), tls=authority.context) as server:
        with pytest.raises(DispatchError, match=r"not trusted: Hostname mismatch.*other\.localhost"):
            dispatcher.send(dispatcher.route(f"https://other.localhost:{server.port}/"), EVENT)
        assert not server.requests


def test_no_tls_where_tls_is_expected(dispatcher: MessageDispatcher) -> None:
    with (
        serving(lambda conversation: conversation.send(ACCEPTED)) as server,
        pytest.raises(DispatchError, match="failed in TLS while connecting"),
    ):
        dispatcher.send(dispatcher.route(f"https://localhost:{server.port}/"), EVENT)


def test_a_drip_is_cut_at_the_deadline(dispatcher: MessageDispatcher, authority: Authority) -> None:
    def behave(conversation: Conversation) -> None:
        for _ in range(2):
            conversation.read()
            conversation.send(ACCEPTED)
        conversation.read()
        conversation.drip(b"HTTP/1.1 100 Continue\r\n\r\n")

    with serving(behave, tls=authority.context) as server:
        route = dispatcher.route(f"https://localhost:{server.port}/")
        for _ in range(2):
            dispatcher.send(route, EVENT)
        begin = time.monotonic()
        with pytest.raises(DeadlineError, match="while receiving"):
            dispatcher.send(route, EVENT, timeout=0.3)
        assert 0.29 < time.monotonic() - begin < 1.5


def test_a_silent_subscriber_is_cut_at_the_deadline(dispatcher: MessageDispatcher, authority: Authority) -> None:
    def behave(conversation: Conversation) -> None:
        conversation.read()
        conversation.wait_for_close()

    with serving(behave, tls=authority.context) as server:
        begin = time.monotonic()
        with pytest.raises(DeadlineError, match="while waiting"):
            dispatcher.send(dispatcher.route(f"https://localhost:{server.port}/"), EVENT, timeout=0.3)
        assert 0.29 < time.monotonic() - begin < 1.5


def test_a_handshake_is_cut_at_the_deadline(dispatcher: MessageDispatcher) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:  # accepts, and says nothing
        begin = time.monotonic()
        with pytest.raises(DeadlineError, match="while connecting"):
            dispatcher.send(dispatcher.route(f"https://localhost:{listener.getsockname()[1]}/"), EVENT, timeout=0.3)
        assert 0.29 < time.monotonic() - begin < 1.5


def test_a_reader_that_does_not_read_is_cut_at_the_deadline(
    dispatcher: MessageDispatcher, authority: Authority
) -> None:
    def behave(conversation: Conversation) -> None:
        conversation.read_head()
        conversation.stopping.wait(5)

    with serving(behave, tls=authority.context) as server:
        event = Message({}, b"x" * 30_000_000)
        begin = time.monotonic()
        with pytest.raises(DeadlineError, match="while sending"):
            dispatcher.send(dispatcher.route(f"https://localhost:{server.port}/"), event, timeout=0.4)
        assert 0.39 < time.monotonic() - begin < 1.5
