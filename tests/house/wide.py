"""Finds classes that hold too much: more than 8 parameters of `__init__`, or more than 12 instance attributes.

A comment `# wide: REASON` on the line above the class, and above its decorators, permits one.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

MOST_PARAMETERS = 8
MOST_ATTRIBUTES = 12


def wide_classes(path: Path) -> Iterator[str]:
    """One sentence for each class that is too wide and says no reason."""
    text = path.read_text()
    lines = text.splitlines()
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.ClassDef):
            continue
        first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
        above = lines[first - 2].strip() if first > 1 else ""
        said, _, reason = above.partition("# wide:")
        excused = not said and len(reason.split()) > 1
        count = parameters(node), len(attributes(node))
        is_wide = count[0] > MOST_PARAMETERS or count[1] > MOST_ATTRIBUTES
        if is_wide and not excused:
            yield f"{path.name}:{node.lineno}: {node.name} has {count[0]} parameters and {count[1]} attributes"
        if excused and not is_wide:
            yield f"{path.name}:{node.lineno}: {node.name} is not wide any more: remove the comment"


def parameters(node: ast.ClassDef) -> int:
    """How many values one gives to make an instance."""
    for item in node.body:
        if isinstance(item, ast.FunctionDef) and item.name == "__init__":
            given = item.args
            named = len(given.posonlyargs) + len(given.args) - 1 + len(given.kwonlyargs)
            return named + (given.vararg is not None) + (given.kwarg is not None)
    return sum(given for _, given in _fields(node)) if _is_dataclass(node) else 0


def attributes(node: ast.ClassDef) -> set[str]:
    """What the class's own methods set on `self`, and the fields of a dataclass."""
    found = {name for name, _ in _fields(node)} if _is_dataclass(node) else set()
    for method in node.body:
        if isinstance(method, ast.FunctionDef | ast.AsyncFunctionDef):
            found |= {
                inner.attr
                for inner in ast.walk(method)
                if isinstance(inner, ast.Attribute)
                and isinstance(inner.ctx, ast.Store)
                and isinstance(inner.value, ast.Name)
                and inner.value.id == "self"
            }
    return found


def _is_dataclass(node: ast.ClassDef) -> bool:
    named = [ast.unparse(each.func if isinstance(each, ast.Call) else each) for each in node.decorator_list]
    bases = [ast.unparse(base).rpartition(".")[2] for base in node.bases]
    return any(name.rpartition(".")[2] == "dataclass" for name in named) or "NamedTuple" in bases


def _fields(node: ast.ClassDef) -> list[tuple[str, bool]]:
    """The fields of a dataclass or NamedTuple, and whether `__init__` takes them."""
    return [
        (item.target.id, "init=False" not in ast.unparse(item))
        for item in node.body
        if isinstance(item, ast.AnnAssign)
        and isinstance(item.target, ast.Name)
        and not ast.unparse(item.annotation).rpartition(".")[2].startswith(("ClassVar", "KW_ONLY"))
    ]
