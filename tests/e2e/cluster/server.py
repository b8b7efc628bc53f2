"""A real Kubernetes API server with its etcd as processes on loopback, RBAC on. No controllers, no nodes."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shutil
import signal
import ssl
import subprocess
import sys
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support import ROOT, free_port, wait_for

CACHE = Path(os.environ.get("BUS_E2E_CACHE", ROOT / ".cache" / "e2e"))
MODULE = Path(__file__).with_name("apiserver")
VERSION = "1.34.1"
ADMIN = "admin-token"


def binary() -> Path:
    """The API server's program, built if need be; a test that needs it is skipped where it cannot be."""
    found = build()
    if found is None:
        pytest.skip("go is missing: the API server is built from its module")
    return found


def build() -> Path | None:
    """Build the program once, which takes minutes. None without Go."""
    found = CACHE / f"kube-apiserver-{VERSION}"
    if not found.exists():
        go = shutil.which("go") or shutil.which("go", path="/usr/local/go/bin")
        if go is None:
            return None
        CACHE.mkdir(parents=True, exist_ok=True)
        making = CACHE / f"kube-apiserver-making-{os.getpid()}"
        version = "k8s.io/component-base/version"
        flags = f"-s -w -X {version}.gitVersion=v{VERSION} -X {version}.gitMajor=1 -X {version}.gitMinor=34"
        goal = "k8s.io/kubernetes/cmd/kube-apiserver"
        command = [go, "build", "-trimpath", f"-ldflags={flags}", "-o", str(making), goal]
        result = subprocess.run(command, cwd=MODULE, capture_output=True, text=True, check=False, timeout=1500)
        assert result.returncode == 0, f"the API server was not built: {result.stderr[-2000:]}"
        making.rename(found)
    return found


@dataclass
class ApiServer:
    """etcd and kube-apiserver; `kill` and `run` take the API server away and bring it back with all it knew."""

    folder: Path
    port: int = field(default_factory=free_port)
    etcd: subprocess.Popen[bytes] | None = None
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    @property
    def ca_file(self) -> Path:
        return self.folder / "certs" / "apiserver.crt"

    def start(self) -> ApiServer:
        program = binary()
        client, peer = free_port(), free_port()
        self.folder.mkdir(parents=True, exist_ok=True)
        command = ["openssl", "genrsa", "-out", str(self.folder / "sa.key"), "2048"]
        subprocess.run(command, capture_output=True, check=True)
        (self.folder / "tokens.csv").write_text(f'{ADMIN},admin,admin,"system:masters"\n')
        self.etcd = self._spawn(
            "etcd", str(Path(sys.executable).with_name("etcd")), "--data-dir", str(self.folder / "etcd"),
            "--listen-client-urls", f"http://127.0.0.1:{client}", "--advertise-client-urls", f"http://127.0.0.1:{client}",
            "--listen-peer-urls", f"http://127.0.0.1:{peer}", "--initial-advertise-peer-urls", f"http://127.0.0.1:{peer}",
            "--initial-cluster", f"default=http://127.0.0.1:{peer}", "--unsafe-no-fsync", "--log-level", "error",
        )  # fmt: skip
        self._command = [
            str(program), "--etcd-servers", f"http://127.0.0.1:{client}", "--bind-address", "127.0.0.1",
            "--secure-port", str(self.port), "--cert-dir", str(self.folder / "certs"),
            "--service-account-key-file", str(self.folder / "sa.key"),
            "--service-account-signing-key-file", str(self.folder / "sa.key"),
            "--service-account-issuer", "https://kubernetes.default.svc",
            "--token-auth-file", str(self.folder / "tokens.csv"), "--authorization-mode", "RBAC",
            "--disable-admission-plugins", "ServiceAccount", "--service-cluster-ip-range", "10.96.0.0/12",
            "--profiling=false", "--v=0",
        ]  # fmt: skip
        self.run()
        return self

    def run(self) -> None:
        """Start the API server, or start it again."""
        self.process = self._spawn("apiserver", *self._command)
        wait_for(self.is_ready, 90, "the API server is ready")

    def is_ready(self) -> bool:
        with contextlib.suppress(OSError):
            return bool(self.ask("GET", "/readyz", raw=True) == b"ok")
        return False

    def kill(self) -> None:
        self.signal(signal.SIGKILL)
        assert self.process is not None
        self.process.wait()

    def signal(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def stop(self) -> None:
        for process in (self.process, self.etcd):
            if process is not None and process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.kill()
                process.wait()

    def ask(self, method: str, path: str, body: Any = None, *, token: str = ADMIN, raw: bool = False) -> Any:
        """One request as the administrator, past every client."""
        data = None if body is None else json.dumps(body).encode()
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        request = urllib.request.Request(self.url + path, data, headers, method=method)
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        with urllib.request.urlopen(request, context=context, timeout=10) as answer:
            content = answer.read()
        return content if raw else json.loads(content)

    def token_of(self, namespace: str, account: str) -> str:
        """A token of a ServiceAccount, as a pod would get it."""
        path = f"/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token"
        request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
        return str(self.ask("POST", path, request)["status"]["token"])

    def kubeconfig(self, name: str, token: str = ADMIN, *, server: str = "") -> Path:
        path = self.folder / f"{name}.kubeconfig"
        authority = base64.b64encode(self.ca_file.read_bytes()).decode()
        cluster = {"server": server or self.url} | (
            {"insecure-skip-tls-verify": True} if server else {"certificate-authority-data": authority}
        )
        path.write_text(
            yaml.safe_dump(
                {
                    "apiVersion": "v1",
                    "kind": "Config",
                    "clusters": [{"name": "c", "cluster": cluster}],
                    "users": [{"name": "u", "user": {"token": token}}],
                    "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
                    "current-context": "x",
                }
            )
        )
        return path

    def kubectl(self, *arguments: str, stdin: str = "", check: bool = True) -> str:
        """What a user types; standard output, and on failure the error."""
        program = shutil.which("kubectl")
        if program is None:
            pytest.skip("kubectl is missing (Debian: apt-get install kubernetes-client)")
        result = subprocess.run(
            [program, "--kubeconfig", str(self.kubeconfig("admin")), *arguments],
            input=stdin, capture_output=True, text=True, check=False, timeout=90,
            env={**os.environ, "HOME": str(self.folder)},
        )  # fmt: skip
        if check:
            assert result.returncode == 0, f"kubectl {' '.join(arguments)}: {result.stderr}{result.stdout}"
        return result.stdout + (result.stderr if not check else "")

    def _spawn(self, name: str, *command: str) -> subprocess.Popen[bytes]:
        with (self.folder / f"{name}.log").open("ab") as log:
            return subprocess.Popen(command, stdout=log, stderr=log, cwd=self.folder)


if __name__ == "__main__":
    # Before the tests, whose time is limited.
    print(f"the API server for the tests: {build() or 'cannot be built without go'}")
