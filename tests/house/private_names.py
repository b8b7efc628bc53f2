"""The check of private names: what is installed uses no underscore name of another package or of another file.

    python -m tests.house.private_names

For example, `request._receive`, `from gunicorn.asgi.protocol import _limit` and a method `_new_conn` that replaces the
one of a base class in urllib3 are reported. A class may use `self._name` for the names that its own file defines, and
`other._name` where `other` is an object of the same class: annotated so, or made by `cls()` or as a copy of `self`.
The exceptions stand in pyproject.toml, in `[[tool.house.private_names]]`. Each names one object of another package,
the names used of it, their shape, the files, and the reason. The check fails when an exception is no longer used, and
when a name moves or changes its shape.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
import sys
import textwrap
import tomllib
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from tests.house.private_uses import Finding, Reader, Touched, is_private
from tests.house.sources import PRODUCT, ROOT

CHECKED = PRODUCT
MOST_EXCEPTIONS = 3


@dataclass(frozen=True)
class Exemption:
    """Permitted names of one object: `of` is MODULE or MODULE:OBJECT; `shape` a signature, or the name of a type."""

    of: str
    names: list[str]
    shape: str
    files: list[str]
    reason: str

    def covers(self, finding: Finding) -> bool:
        return finding.file in self.files and finding.name in self.names


def exemptions() -> list[Exemption]:
    """The list in pyproject.toml."""
    tools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]
    return [Exemption(**entry) for entry in tools.get("house", {}).get("private_names", [])]


def moved(exemption: Exemption) -> list[str]:
    """Why an exemption no longer fits the installed package; empty when it fits."""
    module, _, path = exemption.of.partition(":")
    owner: Any = importlib.import_module(module)
    for part in filter(None, path.split(".")):
        owner = getattr(owner, part)
    wrong = []
    for name in exemption.names:
        if not hasattr(owner, name):
            wrong.append(f"{exemption.of} has no {name} any more")
            continue
        found = getattr(owner, name)
        shape = str(inspect.signature(found)) if callable(found) else type(found).__name__
        if shape != exemption.shape:
            wrong.append(f"{name} of {exemption.of} has the shape {shape}, not {exemption.shape}")
    return wrong


def check(path: Path) -> list[Finding]:
    """All uses in one file."""
    tree = ast.parse(path.read_text())
    reader = Reader(str(path.relative_to(ROOT) if path.is_relative_to(ROOT) else path), tree)
    reader.visit(tree)
    if reader.classes:
        module = _load(path)
        for node, touched in reader.classes:
            _check_bases(reader, node, touched, module)
    return sorted(reader.findings, key=lambda finding: (finding.line, finding.name))


def _load(path: Path) -> ModuleType:
    """The module of a file: its classes know their bases."""
    folder = path.parent
    while (folder / "__init__.py").exists():
        folder = folder.parent
    name = ".".join(path.relative_to(folder).with_suffix("").parts).removesuffix(".__init__")
    if folder != path.parent:
        return importlib.import_module(name)
    spec = importlib.util.spec_from_file_location(f"checked_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def _check_bases(reader: Reader, node: ast.ClassDef, touched: Touched, module: ModuleType) -> None:
    """Report the names that a class takes from a base of another file, or replaces in one."""
    bases: list[type] = []
    for expression in node.bases:
        value = expression.value if isinstance(expression, ast.Subscript) else expression
        try:
            base = eval(ast.unparse(value), vars(module))  # a base is an expression of the file's own namespace
        except NameError:
            continue  # a class inside a function, with a base that exists at run time only
        bases += [klass for klass in getattr(base, "__mro__", ()) if klass is not object]
    own = {name for klass in bases if klass.__module__ == module.__name__ for name in _private_names(klass)}
    foreign = [klass for klass in bases if klass.__module__ != module.__name__]
    for name, line in sorted({**touched.used, **touched.defined}.items()):
        owner = next((klass for klass in foreign if name in _private_names(klass)), None)
        if owner is not None:
            reader.report(line, name, f"belongs to the base {owner.__module__}.{owner.__qualname__}")
        elif bases and name not in touched.defined and name not in own:
            reader.report(line, name, "no class of this file defines it")


def _private_names(klass: type) -> set[str]:
    """The private names that a class itself has: in its body, and as attributes that its methods set on `self`."""
    names = {name for name in vars(klass) if is_private(name) and not name.startswith("_abc_")}
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(klass)))
    except (OSError, TypeError, SyntaxError):  # a class written in C, or made at run time
        return names
    for node in ast.walk(tree):
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and is_private(node.target.id):
            names.add(node.target.id)  # a name that is only annotated; Python 3.14 does not keep it in `vars`
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and is_private(node.attr):
            names |= {node.attr} if isinstance(node.value, ast.Name) and node.value.id == "self" else set()
    return names


def verdict(paths: list[Path], exempt: list[Exemption]) -> list[str]:
    """Everything that is wrong: uses that nothing exempts, exemptions that are stale or have moved, too many."""
    findings = [finding for path in paths for finding in check(path)]
    wrong = [str(finding) for finding in findings if not any(entry.covers(finding) for entry in exempt)]
    for entry in exempt:
        wrong += [f"pyproject.toml: {why}" for why in moved(entry)]
        covered = [finding for finding in findings if entry.covers(finding)]
        unused = set(entry.names) - {found.name for found in covered} | set(entry.files) - {f.file for f in covered}
        wrong += [f"pyproject.toml: {entry.of}: remove {part}, nothing uses it" for part in sorted(unused)]
    if len(exempt) > MOST_EXCEPTIONS:
        wrong.append(f"pyproject.toml: {len(exempt)} exceptions; at most {MOST_EXCEPTIONS}")
    return wrong


if __name__ == "__main__":
    problems = verdict(CHECKED, exemptions())
    print("\n".join(problems) or f"private names: {len(CHECKED)} files kept")
    sys.exit(bool(problems))
