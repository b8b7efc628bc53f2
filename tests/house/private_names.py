"""The check of private names: bus_core and plugins use no underscore name of another package or of another file.

    python -m tests.house.private_names

For example, `request._receive`, `from gunicorn.asgi.protocol import _limit` and a method `_new_conn` that replaces the
one of a base class in urllib3 are reported. A class may use `self._name` for the names that its own file defines.
The exceptions stand in pyproject.toml, in `[[tool.house.private_names]]`. Each names one object of another package,
the names used of it, their shape, the files, and the reason. The check fails when an exception is no longer used, and
when a name moves or changes its shape.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
import re
import sys
import textwrap
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from tests.house.sources import ROOT, python_files

CHECKED = python_files("bus_core", "plugins")
MOST_EXCEPTIONS = 3
_BY_STRING = {"getattr", "setattr", "hasattr", "delattr", "attrgetter", "methodcaller", "__setattr__"}
_IMPORTERS = {"import_module", "__import__"}
_PATCHERS = {"patch", "object"}  # mock.patch("package._name"), mock.patch.object(package, "_name")


@dataclass(frozen=True)
class Finding:
    """One use of a private name."""

    file: str
    line: int
    name: str
    why: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.name}: {self.why}"


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


@dataclass
class _Touched:
    """The private names that one class reads and defines, each with its first line."""

    used: dict[str, int] = field(default_factory=dict)
    defined: dict[str, int] = field(default_factory=dict)


def is_private(name: str) -> bool:
    """True for `_name`; false for `_` and for names such as `__init__`."""
    return name.startswith("_") and name.strip("_") != "" and not (name.startswith("__") and name.endswith("__"))


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
    reader = _Reader(str(path.relative_to(ROOT) if path.is_relative_to(ROOT) else path), tree)
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


def _check_bases(reader: _Reader, node: ast.ClassDef, touched: _Touched, module: ModuleType) -> None:
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
    names |= {name for name in vars(klass).get("__annotations__", {}) if is_private(name)}
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(klass)))
    except (OSError, TypeError, SyntaxError):  # a class written in C, or made at run time
        return names
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and is_private(node.attr):
            names |= {node.attr} if isinstance(node.value, ast.Name) and node.value.id == "self" else set()
    return names


class _Reader(ast.NodeVisitor):
    """Reads one file: reports what needs no knowledge of classes, and collects each class's own private names."""

    def __init__(self, file: str, tree: ast.Module) -> None:
        self.file = file
        self.findings: list[Finding] = []
        self.classes: list[tuple[ast.ClassDef, _Touched]] = []
        self._open: list[_Touched] = []
        imports = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
        self._imported = {
            (alias.asname or alias.name).partition(".")[0]
            for node in imports
            for alias in node.names
            if not (isinstance(node, ast.ImportFrom) and node.module == "__future__")
        }

    def report(self, line: int, name: str, why: str) -> None:
        self.findings.append(Finding(self.file, line, name, why))

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            self._module(node.lineno, alias.name)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        self._module(node.lineno, node.module or "")
        for alias in node.names:
            if is_private(alias.name):
                self.report(node.lineno, alias.name, f"imported from {node.module or '.'}")

    def _module(self, line: int, module: str) -> None:
        for part in filter(is_private, module.split(".")):
            self.report(line, part, f"a private module, in {module}")

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        touched = _Touched()
        for item in node.body:
            if isinstance(item, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                self._define(touched, item.name, item.lineno)
            elif isinstance(item, ast.Assign | ast.AnnAssign):
                targets = item.targets if isinstance(item, ast.Assign) else [item.target]
                for part in (inner for target in targets for inner in ast.walk(target)):
                    if isinstance(part, ast.Name):
                        self._define(touched, part.id, item.lineno)
        self.classes.append((node, touched))
        self._open.append(touched)
        self.generic_visit(node)
        self._open.pop()

    def _define(self, touched: _Touched, name: str, line: int) -> None:
        if is_private(name):
            touched.defined.setdefault(name, line)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        if is_private(node.attr):
            self._touch(node.lineno, node.value, node.attr, isinstance(node.ctx, ast.Store))
        elif isinstance(node.ctx, ast.Store) and isinstance(node.value, ast.Name | ast.Attribute):
            root: ast.expr = node.value
            while isinstance(root, ast.Attribute):
                root = root.value
            if isinstance(root, ast.Name) and root.id in self._imported - {"sys"}:
                self.report(node.lineno, ast.unparse(node), "changes another module's object")
        self.generic_visit(node)

    def _touch(self, line: int, owner: ast.expr, name: str, is_store: bool) -> None:
        is_super = isinstance(owner, ast.Call) and ast.unparse(owner.func) == "super"
        is_own = isinstance(owner, ast.Name) and owner.id in ("self", "cls")
        if self._open and (is_own or is_super):
            kind = self._open[-1].defined if is_store else self._open[-1].used
            kind.setdefault(name, line)
        else:
            self.report(line, name, f"of {ast.unparse(owner)}")

    def visit_Call(self, node: ast.Call) -> None:
        called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        texts = [value.value for value in node.args if isinstance(value, ast.Constant) and isinstance(value.value, str)]
        for text in texts:
            last = text.rpartition(".")[2]
            if called in _BY_STRING and len(node.args) > 1 and is_private(text):
                self._touch(node.lineno, node.args[0], text, called in ("setattr", "__setattr__"))
            elif called in _BY_STRING | _PATCHERS and is_private(last):
                self.report(node.lineno, last, f"by {called}()")
            elif called in _IMPORTERS:
                self._module(node.lineno, text)
        self.generic_visit(node)

    def visit_Subscript(self, node: ast.Subscript) -> None:
        owner = ast.unparse(node.value)
        by_table = owner.endswith(".__dict__") or re.match(r"(vars|globals)\(", owner)
        if by_table and isinstance(node.slice, ast.Constant) and is_private(str(node.slice.value)):
            self.report(node.lineno, str(node.slice.value), f"of {owner}")
        self.generic_visit(node)

    def visit_MatchClass(self, node: ast.MatchClass) -> None:
        for name in filter(is_private, node.kwd_attrs):
            self.report(node.lineno, name, "in a pattern")
        self.generic_visit(node)


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
