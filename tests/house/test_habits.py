"""The habits that outsiders expect: CI, templates, metadata, versions and the release page agree with the code."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

import bus_core
from tests.house.lowest import PROJECTS
from tests.support import ROOT

YAML = [ROOT / ".pre-commit-config.yaml", *sorted((ROOT / ".github").rglob("*.yml"))]
TEMPLATES = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))


def project(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = tomllib.loads(path.read_text())["project"]
    return found


def supported() -> list[str]:
    classifiers: list[str] = project(PROJECTS[0])["classifiers"]
    return [found[1] for line in classifiers if (found := re.fullmatch(r"Programming .* :: (3\.\d+)", line))]


@pytest.mark.parametrize("path", YAML, ids=lambda path: path.name)
def test_a_yaml_file_is_valid(path: Path) -> None:
    assert isinstance(yaml.safe_load(path.read_text()), dict)


def test_ci_runs_the_same_command_on_every_supported_python() -> None:
    (job,) = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())["jobs"].values()
    assert job["strategy"]["matrix"]["python"] == supported() == ["3.11", "3.12", "3.13", "3.14"]
    assert job["env"]["PYTHON"] == "python${{ matrix.python }}"
    assert "PYTHON ?=" in (ROOT / "Makefile").read_text()
    assert [step["run"] for step in job["steps"] if "run" in step] == ["bash .ci/run"]


def test_ci_run_goes_through_everything_in_order() -> None:
    lines = (ROOT / ".ci" / "run").read_text().splitlines()
    made = [words[words.index("make") + 1] for words in map(str.split, lines) if "make" in words and "#" not in words]
    assert made == ["lint", "demo", "test", "e2e", "soak", "test-lowest"]


def test_every_hook_of_pre_commit_is_our_own() -> None:
    (repo,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert repo["repo"] == "local"
    targets = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    entries = [hook["entry"].split() for hook in repo["hooks"]]
    assert {words[1] for words in entries if words[0] == "make"} <= targets
    for words in entries:
        assert all((ROOT / word).exists() for word in words if word.startswith("tests/"))


@pytest.mark.parametrize(("length", "code"), [(72, 0), (73, 1)])
def test_a_long_subject_is_refused(tmp_path: Path, length: int, code: int) -> None:
    (repo,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    (entry,) = [hook["entry"] for hook in repo["hooks"] if hook["id"] == "subject"]
    message = tmp_path / "message"
    message.write_text("x" * length + "\n\nA body may have longer lines than the subject, as here: " + "x" * 80)
    assert subprocess.run(f"{entry} {message}", shell=True, check=False, capture_output=True).returncode == code


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.name)
def test_an_issue_template_asks_for_something(path: Path) -> None:
    form = yaml.safe_load(path.read_text())
    if path.name == "config.yml":
        assert form["blank_issues_enabled"] is False
        return
    assert {"name", "description", "body"} <= form.keys()
    ids = [field["id"] for field in form["body"]]
    assert len(ids) == len(set(ids)) >= 3
    assert [field for field in form["body"] if field.get("validations", {}).get("required")]


def test_there_is_a_template_for_each_kind_of_issue() -> None:
    assert {path.stem for path in TEMPLATES} == {"bug", "feature", "driver", "config"}
    assert "make test" in (ROOT / ".github" / "pull_request_template.md").read_text()


@pytest.mark.parametrize("path", PROJECTS, ids=lambda path: path.parent.name)
def test_a_package_says_where_it_comes_from(path: Path) -> None:
    said = project(path)
    assert {"Documentation", "Source", "Changelog", "Issues"} == said["urls"].keys()
    assert said["version"] == bus_core.__version__, "the three packages have one version"
    assert said["requires-python"] == ">=3.11"
    for version in supported():
        assert f"Programming Language :: Python :: {version}" in said["classifiers"]


def test_the_changelog_and_the_release_page_name_the_version() -> None:
    assert re.search(rf"^## {re.escape(bus_core.__version__)} ", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert f"v{bus_core.__version__}" in (ROOT / "docs" / "release.md").read_text()


def test_where_a_vulnerability_is_reported_is_found() -> None:
    assert "in private" in (ROOT / "SECURITY.md").read_text()
    assert "](SECURITY.md)" in (ROOT / "CONTRIBUTING.md").read_text()


@pytest.mark.parametrize("folder", [".venv/", ".venv-lowest/", "uv.lock"])
def test_what_tools_leave_is_ignored_by_git(folder: str) -> None:
    assert folder in (ROOT / ".gitignore").read_text().splitlines()


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "SECURITY.md"])
def test_links_of_the_pages_in_the_root_lead_somewhere(page: str) -> None:
    targets = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", (ROOT / page).read_text())
    assert targets
    for target in targets:
        assert "://" in target or (ROOT / target).exists(), f"{page} links to {target}"
