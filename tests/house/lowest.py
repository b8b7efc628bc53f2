"""The oldest versions that the pyproject.toml files allow: the pins beside them, and a check that they are installed.

    python -m tests.house.lowest pins     # what constraints.txt pins and no pyproject.toml names
    python -m tests.house.lowest check    # fails where an installed version is not the oldest allowed one

`make test-lowest` installs with the first and runs the second.
"""

from __future__ import annotations

import re
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, version

from tests.house.sources import ROOT

PROJECTS = [ROOT / "pyproject.toml", *sorted(ROOT.glob("plugins/*/pyproject.toml"))]
FOLLOWING = {"pydantic-core"}  # pydantic demands one exact version of it


def minimums() -> dict[str, str]:
    """The dependencies of all three packages, each with its lower bound; the highest, where two name one."""
    found: dict[str, str] = {}
    for path in PROJECTS:
        project = tomllib.loads(path.read_text())["project"]
        extras = project.get("optional-dependencies", {}).values()
        for requirement in [*project["dependencies"], *(line for extra in extras for line in extra)]:
            name, bound = re.fullmatch(r"([\w-]+)(?:>=([\d.]+))?(?:,<[\d.]+)?", requirement).groups()  # type: ignore[union-attr]
            if bound and parts(bound) > parts(found.get(name, "0")):
                found[name] = bound
    return found


def parts(number: str) -> tuple[int, ...]:
    """A version as numbers; 34 and 34.0.0 are the same one."""
    numbers = [int(part) for part in number.split(".")]
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)


def pins() -> list[str]:
    """What constraints.txt pins for the packages that are not ours to choose."""
    lines = [line.rstrip(" \\") for line in (ROOT / "constraints.txt").read_text().splitlines()]
    pinned = [line for line in lines if re.match(r"[\w.-]+==", line)]
    return [line for line in pinned if line.partition("==")[0] not in minimums().keys() | FOLLOWING]


def misses() -> list[str]:
    """Dependencies whose installed version is not the oldest that is allowed."""
    wrong = []
    for name, bound in minimums().items():
        try:
            installed = version(name)
        except PackageNotFoundError:
            installed = "none"
        if installed == "none" or parts(installed) != parts(bound):
            wrong.append(f"{name}: pyproject.toml allows {bound}, and {installed} is installed")
    return wrong


if __name__ == "__main__":
    lines = pins() if sys.argv[1] == "pins" else misses()
    print("\n".join(lines))
    sys.exit(sys.argv[1] == "check" and bool(lines))
