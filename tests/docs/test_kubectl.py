"""Documented kubectl commands name our kinds in full: Knative has kinds of the same names in another group."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support import ROOT

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
_SHORT = re.compile(r"^(bus|buses|clusterbus(es)?|chan|cbus|sub|channels?|subscriptions?)(/.*|,.*)?$")
_VERBS = ("annotate", "delete", "describe", "edit", "get", "label", "patch", "wait")


def unqualified(text: str) -> list[str]:
    """The arguments of kubectl commands that name a kind of ours without its group."""
    found = []
    for command in re.findall(r"kubectl [^`\n|]*", text):
        words = command.split()
        if len(words) > 1 and words[1] in _VERBS:
            kinds = [word for word in words[2:] if not word.startswith("-")]
            found += [word for word in kinds if any(_SHORT.match(part) for part in word.split(","))]
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_kinds_are_named_in_full(page: Path) -> None:
    assert unqualified(page.read_text()) == []


def test_the_check_sees_what_it_looks_for() -> None:
    text = "`kubectl get channels`\n$ kubectl delete subscriptions,channels --all\n$ kubectl wait channel/orders\n"
    assert unqualified(text) == ["channels", "subscriptions,channels", "channel/orders"]
    assert unqualified("`kubectl get channels.channels.knative.dev orders`") == []
