"""The files that the house checks read."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent


def python_files(*folders: str) -> list[Path]:
    """All Python files below these folders of the checkout, in order."""
    found = [path for folder in folders for path in (ROOT / folder).rglob("*.py")]
    return sorted(path for path in found if not any(part.startswith(".") for part in path.relative_to(ROOT).parts))


PRODUCT = [path for path in python_files("bus_core", "plugins") if "tests" not in path.relative_to(ROOT).parts]
"""What is installed: bus_core and the packages of the plugins."""
