"""Reads the threads and locks out of the code, and their names out of docs/concurrency.md.

    python -m tests.house.concurrency     # prints the difference

A thread has a name that is a literal or an f-string; `f"reconcile-{n}"` stands on the page as `reconcile-…`. A subclass
of Thread gives its name to `super().__init__`. A lock is an attribute, and stands on the page as `Class._attribute`.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.house.sources import PRODUCT, ROOT

PAGE = ROOT / "docs" / "concurrency.md"
_LOCKS = {"Lock", "RLock", "Condition", "Semaphore", "BoundedSemaphore"}
_THREADS = {"Thread": "name", "ThreadPoolExecutor": "thread_name_prefix"}
_MODULES = {"threading", "concurrent.futures"}


class _Reader(ast.NodeVisitor):
    def __init__(self, file: str) -> None:
        self.file = file
        self.threads: set[str] = set()
        self.locks: set[str] = set()
        self.problems: list[str] = []
        self._classes: list[str] = []
        self._attributes: dict[int, str] = {}
        self._imported: set[str] = set()  # by `from threading import Lock`

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        if node.module in _MODULES:
            self._imported.update(alias.asname or alias.name for alias in node.names)

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        self._classes.append(node.name)
        bases = {ast.unparse(base).rpartition(".")[2] for base in node.bases}
        starts = [
            one for one in ast.walk(node) if isinstance(one, ast.Call) and ast.unparse(one.func) == "super().__init__"
        ]
        if "Thread" in bases:
            for call in starts:
                self._thread("Thread", call)
            if not starts:
                self.problems.append(f"{self.file}:{node.lineno}: a Thread without a literal name=")
        self.generic_visit(node)
        self._classes.pop()

    def visit_Assign(self, node: ast.Assign) -> None:
        for target in node.targets:
            self._remember(target, node.value)
        self.generic_visit(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            self._remember(node.target, node.value)
        self.generic_visit(node)

    def _remember(self, target: ast.expr, value: ast.expr) -> None:
        if isinstance(target, ast.Attribute) and self._classes:
            self._attributes[id(value)] = f"{self._classes[-1]}.{target.attr}"

    def visit_Call(self, node: ast.Call) -> None:
        module, _, called = ast.unparse(node.func).rpartition(".")
        if module not in _MODULES | {"futures"} and called not in self._imported:
            called = ""  # for example the Condition of a resource
        where = f"{self.file}:{node.lineno}"
        if called in _LOCKS:
            if id(node) in self._attributes:
                self.locks.add(self._attributes[id(node)])
            else:
                self.problems.append(f"{where}: a {called} that is no attribute of a class")
        elif called in _THREADS:
            self._thread(called, node)
        elif called == "Timer":
            self.problems.append(f"{where}: a Timer is a thread that cannot be named")
        self.generic_visit(node)

    def _thread(self, made: str, node: ast.Call) -> None:
        name = next((word.value for word in node.keywords if word.arg == _THREADS[made]), None)
        if isinstance(name, ast.Constant) and isinstance(name.value, str):
            self.threads.add(name.value + ("_…" if made == "ThreadPoolExecutor" else ""))
        elif isinstance(name, ast.JoinedStr):
            parts = [part.value if isinstance(part, ast.Constant) else "…" for part in name.values]
            self.threads.add("".join(map(str, parts)))
        else:
            self.problems.append(f"{self.file}:{node.lineno}: a {made} without a literal {_THREADS[made]}=")


def read(path: Path) -> _Reader:
    """The threads and locks of one file, and what is wrong with them."""
    reader = _Reader(str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else path.name)
    reader.visit(ast.parse(path.read_text()))
    return reader


def _rows(text: str, section: str) -> set[str]:
    """The code names in the first column of the table under a heading."""
    found = re.search(rf"^## {section}$(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    lines = found[1].splitlines() if found else []
    return {name for line in lines if line.startswith("| `") for name in re.findall(r"`([^`]+)`", line.split("|")[1])}


def differences(paths: list[Path], text: str) -> Iterator[str]:
    """One sentence for everything that the code has and the page lacks, or the other way round."""
    readers = [read(path) for path in paths]
    for reader in readers:
        yield from reader.problems
    for section, attribute in (("Threads", "threads"), ("Locks", "locks")):
        listed = _rows(text, section)
        for reader in readers:
            missing = sorted(getattr(reader, attribute) - listed)
            yield from (f"{reader.file}: {name} is missing in {section} of docs/concurrency.md" for name in missing)
        known = {name for reader in readers for name in getattr(reader, attribute)}
        yield from (f"docs/concurrency.md: {section} has {name}, the code has not" for name in sorted(listed - known))


if __name__ == "__main__":
    problems = list(differences(PRODUCT, PAGE.read_text()))
    print("\n".join(problems) or "threads and locks: code and page agree")
    sys.exit(bool(problems))
