"""The check of private names finds each sort of use, lets good code pass, and holds its exceptions to what they say."""

from __future__ import annotations

import dataclasses
import textwrap
from pathlib import Path

import pytest

from tests.house.private_names import MOST_EXCEPTIONS, Exemption, check, exemptions, moved, verdict
from tests.house.private_uses import is_private
from tests.house.sources import ROOT

FOUND = {
    "a private name imported": ("from email import _policybase", "_policybase"),
    "a private name imported out of a module": ("from email.message import _splitparam", "_splitparam"),
    "a private module": ("import email._policybase", "_policybase"),
    "a name imported out of a private module": ("from email._policybase import Compat32", "_policybase"),
    "a name of our own other file": ("from bus_core.telemetry import _Metric", "_Metric"),
    "an attribute of an argument": ("def read(request):\n    return request._receive", "_receive"),
    "an attribute of a module": ("import os\nos._exit(0)", "_exit"),
    "an attribute of a member": ("class A:\n    def read(self):\n        return self.request._receive", "_receive"),
    "an attribute that is set": ("def set_up(request):\n    request._receive = None", "_receive"),
    "an attribute that is deleted": ("def drop(request):\n    del request._receive", "_receive"),
    "self outside of a class": ("def patched(self):\n    return self._sock", "_sock"),
    "an argument that may be of another class": (
        "class A:\n    _x = 1\n    def same(self, other: object):\n        return other._x",
        "_x",
    ),
    "a variable of another class": ("class A:\n    _x = 1\n    def f(self):\n        b = B()\n        b._x = 2", "_x"),
    "getattr": ("def read(request):\n    return getattr(request, '_receive', None)", "_receive"),
    "setattr": ("def read(request):\n    setattr(request, '_receive', 1)", "_receive"),
    "object.__setattr__": ("def read(request):\n    object.__setattr__(request, '_receive', 1)", "_receive"),
    "attrgetter": ("import operator\nread = operator.attrgetter('request._receive')", "_receive"),
    "vars": ("def read(request):\n    return vars(request)['_receive']", "_receive"),
    "__dict__": ("def read(request):\n    return request.__dict__['_receive']", "_receive"),
    "import_module": ("import importlib\nread = importlib.import_module('email._policybase')", "_policybase"),
    "mock.patch": ("from unittest import mock\nread = mock.patch('email.message._splitparam')", "_splitparam"),
    "a pattern": ("def read(x):\n    match x:\n        case dict(_a=1):\n            pass", "_a"),
    "a function of a module that is replaced": ("import email\nemail.message_from_string = print", "email.message"),
    "a method of a class that is replaced": (
        "from http.client import HTTPConnection\ndef fast(): HTTPConnection.connect = print",
        "HTTPConnection.connect",
    ),
    "a method that overrides": (
        "import urllib3.connection as u\nclass A(u.HTTPConnection):\n    def _new_conn(self):\n        pass",
        "_new_conn",
    ),
    "an attribute of the base's methods": (
        "from http.client import HTTPConnection as C\nclass A(C):\n    def f(self):\n        return self._buffer",
        "_buffer",
    ),
    "an attribute of the base that is set": (
        "from http.client import HTTPConnection as C\nclass A(C):\n    def f(self):\n        self._buffer = []",
        "_buffer",
    ),
    "a member of the base's body": (
        "from http.client import HTTPConnection as C\nclass A(C):\n    _http_vsn = 10",
        "_http_vsn",
    ),
    "getattr on self": (
        "from http.client import HTTPConnection as C\nclass A(C):\n    def f(self): return getattr(self, '_buffer')",
        "_buffer",
    ),
    "super": (
        "from http.client import HTTPConnection as C\nclass A(C):\n    def f(self): super()._output(b'')",
        "_output",
    ),
    "a base of a base": (
        "from http.client import HTTPConnection as C\nclass A(C): pass\nclass B(A):\n    def f(self): self._buffer",
        "_buffer",
    ),
    "a class inside a function": (
        "from http.client import HTTPConnection as C\ndef make():\n    class A(C):\n        def f(self): self._buffer",
        "_buffer",
    ),
    "a name that no class here defines": (
        "import threading\nclass A(threading.Thread):\n    def f(self): return self._nobody_has_it",
        "_nobody_has_it",
    ),
    "a base in our own other file": (
        "from bus_core.telemetry import Counter\nclass A(Counter):\n    def f(self): return self._children",
        "_children",
    ),
}


def findings(folder: Path, text: str) -> list[str]:
    path = folder / "snippet.py"
    path.write_text(text)
    return [finding.name for finding in check(path)]


@pytest.mark.parametrize("sort", FOUND)
def test_each_sort_of_use_is_found(tmp_path: Path, sort: str) -> None:
    text, name = FOUND[sort]
    found = findings(tmp_path, text)
    assert len(found) == 1
    assert found[0].startswith(name)


def test_good_code_passes(tmp_path: Path) -> None:
    good = """
        from __future__ import annotations
        import copy
        import sys
        import threading
        from http.client import HTTPConnection as _Connection
        from typing import NamedTuple

        _LIMIT = 3

        class Pair(NamedTuple):
            left: int

        class Own(_Connection):
            _seen = 0
            _later: int

            def __init__(self, host: str) -> None:
                super().__init__(host)
                self._taken = threading.Lock()
                self.host = host
                self._later = _LIMIT

            def _take(self) -> int:
                _, self._seen = self._later, 1
                return len(self.__class__.__name__) + getattr(self, "_seen") + self.__dict__["host"]

            @classmethod
            def make(cls) -> Own:
                return cls(cls._name())

            def __eq__(self, other: Own) -> bool:
                return self._seen == other._seen

            def with_later(self, later: int) -> Own:
                made = copy.copy(self)
                made._later = later
                return made

            @staticmethod
            def _name() -> str:
                return "x"

        class Next(Own):
            def close(self) -> None:
                super()._take()
                self._take()
                super().close()

        class Alone:
            def read(self) -> int:
                return self._set_by_a_mixin

        sys.stdout = sys.stderr
    """
    assert findings(tmp_path, textwrap.dedent(good)) == []


@pytest.mark.parametrize(
    ("name", "private"), [("_a", True), ("__a", True), ("_", False), ("__a__", False), ("a_", False)]
)
def test_what_is_private(name: str, private: bool) -> None:
    assert is_private(name) is private


@pytest.mark.parametrize("entry", exemptions(), ids=lambda entry: entry.of)
def test_each_exception_still_names_what_it_did(entry: Exemption) -> None:
    """Fails when the other package moves or changes what we use."""
    assert moved(entry) == []
    assert len(entry.reason.split()) > 5
    assert moved(dataclasses.replace(entry, names=["_no_such_name"])) == [f"{entry.of} has no _no_such_name any more"]
    assert len(moved(dataclasses.replace(entry, shape="(of, another, shape)"))) == len(entry.names)


def test_the_list_of_exceptions_is_short_and_used(tmp_path: Path) -> None:
    path = tmp_path / "snippet.py"
    path.write_text("import os\nos._exit(0)\n")
    entry = Exemption("os", ["_exit"], "(status)", [str(path)], "a test of this list")
    assert verdict([path], [entry]) == []
    assert verdict([path], []) == [f"{path}:2: _exit: of os"]
    assert [text for text in verdict([], [entry]) if "remove _exit, nothing uses it" in text]
    assert len([text for text in verdict([path], [entry] * 4) if f"at most {MOST_EXCEPTIONS}" in text]) == 1
    moved_away = dataclasses.replace(entry, names=["_exit", "_left"])
    assert "pyproject.toml: os has no _left any more" in verdict([path], [moved_away])


def test_the_list_stands_in_one_place() -> None:
    assert len(exemptions()) <= MOST_EXCEPTIONS
    assert (ROOT / "pyproject.toml").read_text().count("[[tool.house.private_names]]") == len(exemptions())
