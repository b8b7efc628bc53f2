"""The documentation agrees with the code: names, hooks, settings, and every test that a hook demands."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path

import pytest

import bus_core
from bus_core.driver.hookspecs import BusSyncing, Driver
from bus_core.settings.settings import ENV_PREFIX, Settings
from kafka_bus import KafkaBus
from kafka_bus.settings import KafkaSettings
from tests.support import ROOT

DOCS = ROOT / "docs"
REQUIRED_HOOKS = [name for name, member in inspect.getmembers(Driver) if hasattr(member, "bus_core_spec")]
OPTIONAL_HOOKS = [name for name, member in vars(BusSyncing).items() if hasattr(member, "bus_core_spec")]


def settings_table() -> str:
    """The table of docs/settings.md, as it should be."""
    rows = ["| flag | environment | default | |", "|---|---|---|---|"]
    for name, info in Settings.model_fields.items():
        if name in ("namespace", "name"):
            continue
        default = (
            ""
            if info.default in (None, "")
            else f"`{str(info.default).lower() if info.default is False else info.default}`"
        )
        rows.append(f"| `--{name.replace('_', '-')}` | `{ENV_PREFIX}{name.upper()}` | {default} | {info.description} |")
    return "\n".join(rows) + "\n"


def covered_hooks() -> set[str]:
    """Hooks that some test is marked to cover."""
    hooks: set[str] = set()
    for folder in ("tests", "plugins"):
        for path in (ROOT / folder).rglob("test_*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Call) and ast.unparse(node.func) == "pytest.mark.covers":
                    hooks.update(argument.value for argument in node.args if isinstance(argument, ast.Constant))  # type: ignore[misc]
    return hooks


def test_there_are_hooks_to_document() -> None:
    assert set(REQUIRED_HOOKS) == {"provision", "unprovision", "subscribe", "unsubscribe", "receive"}
    assert OPTIONAL_HOOKS == ["sync_bus"]


@pytest.mark.parametrize("hook", [*REQUIRED_HOOKS, *OPTIONAL_HOOKS])
def test_every_hook_has_a_section_and_a_test(hook: str) -> None:
    assert re.search(rf"^### `{hook}`$", (DOCS / "driver.md").read_text(), re.MULTILINE), f"docs/driver.md lacks {hook}"
    assert hook in covered_hooks(), f"no test is marked covers({hook!r})"


def test_the_reference_page_and_all_agree() -> None:
    text = (DOCS / "reference.md").read_text()
    rows = [line.split("|")[1] for line in text.splitlines() if line.startswith("| `")]
    named = [name for row in rows for name in re.findall(r"`(\w+)`", row)]
    assert sorted(named) == sorted(bus_core.__all__)
    assert len(named) == len(set(named))
    for name in named:
        assert getattr(bus_core, name) is not None


def test_the_settings_page_has_every_setting() -> None:
    assert settings_table() in (DOCS / "settings.md").read_text()


def test_the_kafka_page_has_every_setting_and_parameter() -> None:
    text = (DOCS / "kafka.md").read_text()
    for name, info in KafkaSettings.model_fields.items():
        default = info.default_factory() if info.default_factory else info.default  # type: ignore[call-arg]
        is_empty = info.is_required() or default in (None, "", {})
        shown = "" if is_empty else f"`{str(default).lower() if isinstance(default, bool) else default}`"
        assert f"| `{name}` | {shown} | {info.description} |" in text
    for parameter in KafkaBus.parameters:
        assert re.search(rf"^\| `{parameter.name}` \| {parameter.scope.capitalize()} \|", text, re.MULTILINE)


def test_links_lead_somewhere() -> None:
    for page in [ROOT / "README.md", *DOCS.rglob("*.md")]:
        for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text()):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_no_page_is_a_stub() -> None:
    pages = list(Path(DOCS).rglob("*.md"))
    assert len(pages) >= 15
    for page in pages:
        assert len(page.read_text().split()) > 60, page.name


def test_the_settings_page_has_the_variables_of_other_programs() -> None:
    page = (DOCS / "settings.md").read_text()
    for variable in ("SSL_CERT_FILE", "SSL_CERT_DIR", "XDG_STATE_HOME"):
        assert f"`{variable}`" in page
