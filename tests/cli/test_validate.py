"""`bus validate`: file, line and field of each mistake."""

from __future__ import annotations

import json
from pathlib import Path

import yaml

from tests.support import QUICKSTART, manifest
from tests.zygote import run_bus


def test_validate_accepts_the_quickstart() -> None:
    result = run_bus("validate", str(QUICKSTART), "-o", "json")
    assert result.returncode == 0
    report = json.loads(result.stdout)
    assert len(report["resources"]) == 6
    assert report["errors"] == []


def test_validate_says_file_line_and_field(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(
        "apiVersion: channels.knative.dev/v1alpha1\nkind: Subscription\nmetadata:\n  name: a\n"
        "spec:\n  channel: nowhere\n  subscriberr: x\n"
    )
    result = run_bus("validate", str(tmp_path))
    assert result.returncode == 2
    assert f"{tmp_path}/a.yaml:7: spec.subscriberr: unknown field; did you mean 'subscriber'?" in result.stderr
    assert "Traceback" not in result.stderr


def test_validate_follows_references(tmp_path: Path) -> None:
    objects = [
        manifest("Bus", "b"),
        manifest("Channel", "c", bus="other"),
        manifest("Subscription", "s", channel="x", subscriber="there"),
    ]
    (tmp_path / "a.yaml").write_text(yaml.safe_dump_all(objects))
    result = run_bus("validate", str(tmp_path), "-o", "json")
    assert [error["field"] for error in json.loads(result.stdout)["errors"]] == ["spec.bus", "spec.channel"]
    assert run_bus("validate", str(tmp_path / "nowhere")).returncode == 2
