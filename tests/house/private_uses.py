"""Reads the uses of private names out of one file; the check of private names judges them."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass, field

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


@dataclass
class Touched:
    """The private names that one class reads and defines, each with its first line."""

    used: dict[str, int] = field(default_factory=dict)
    defined: dict[str, int] = field(default_factory=dict)


def is_private(name: str) -> bool:
    """True for `_name`; false for `_` and for names such as `__init__`."""
    return name.startswith("_") and name.strip("_") != "" and not (name.startswith("__") and name.endswith("__"))


class Reader(ast.NodeVisitor):
    """Reads one file: reports what needs no knowledge of classes, and collects each class's own private names."""

    def __init__(self, file: str, tree: ast.Module) -> None:
        self.file = file
        self.findings: list[Finding] = []
        self.classes: list[tuple[ast.ClassDef, Touched]] = []
        self._open: list[Touched] = []
        self._names: list[str] = []  # of the open classes
        self._own: list[set[str]] = []  # in each open function: the variables that hold an object of the open class
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
        touched = Touched()
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
        self._names.append(node.name)
        self.generic_visit(node)
        self._names.pop()
        self._open.pop()

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        own = {"self", "cls"}
        if self._open:
            mine = {"Self", self._names[-1]}
            for argument in (*node.args.args, *node.args.kwonlyargs):
                if argument.annotation is not None and ast.unparse(argument.annotation) in mine:
                    own.add(argument.arg)
            makers = re.compile(
                rf"(cls|{self._names[-1]})\(|copy\.(deep)?copy\(self\b|(dataclasses\.)?replace\(self\b|self\.model_copy\("
            )
            for inner in ast.walk(node):
                if isinstance(inner, ast.Assign) and makers.match(ast.unparse(inner.value)):
                    own |= {target.id for target in inner.targets if isinstance(target, ast.Name)}
        self._own.append(own)
        self.generic_visit(node)
        self._own.pop()

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> None:
        self.visit_FunctionDef(node)

    def _define(self, touched: Touched, name: str, line: int) -> None:
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
        is_own = isinstance(owner, ast.Name) and any(owner.id in own for own in self._own)  # a closure's too
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
