"""Source: turns YAML text into plain objects: quickly if it is valid, with line numbers if it is not."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from bus_core.model.errors import ManifestError

MAX_NODES = 500_000
"""The limit of nodes in a file, counted with aliases expanded: a few lines of aliases can expand to billions."""

MAX_DEPTH = 64
"""The limit of nesting, with aliases expanded: an alias may contain itself, and PyYAML's C code recurses."""

Lines = dict[tuple[str | int, ...], int]
"""The line on which each field begins, by its path; the empty path is the object itself."""

_SafeLoader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class UnusualYAMLError(Exception):
    """The text contains a mistake, an anchor, a tag or deep nesting. Only `objects_with_lines` handles these."""


def objects(text: str) -> list[Any]:
    """Every document of a text as plain data. Three times as fast as `objects_with_lines`, with the same result.

    Raises:
        UnusualYAMLError: call `objects_with_lines`, which reads the text or finds the mistake and its line.
    """
    loader = _SafeLoader(text)
    found = []
    try:
        while loader.check_event():
            event = loader.get_event()
            if type(event) is yaml.DocumentStartEvent:
                found.append(_Events(loader).value(loader.get_event(), 0))
    except (yaml.YAMLError, ValueError, RecursionError):
        raise UnusualYAMLError from None
    finally:
        loader.dispose()
    return found


class _Events:
    """Builds the data of one document from the parser's events, without nodes and their places."""

    def __init__(self, loader: Any) -> None:
        self._next = loader.get_event
        self._nodes = 0

    def value(self, event: Any, depth: int) -> Any:
        self._nodes += 1
        kind = type(event)
        if kind is yaml.AliasEvent or event.anchor is not None or event.tag is not None:
            raise UnusualYAMLError
        if kind is yaml.ScalarEvent:
            return _plain(event.value) if event.implicit[0] else event.value
        if depth >= MAX_DEPTH or self._nodes > MAX_NODES:
            raise UnusualYAMLError
        if kind is yaml.MappingStartEvent:
            return self._mapping(depth + 1)
        items = []
        while type(event := self._next()) is not yaml.SequenceEndEvent:
            items.append(self.value(event, depth + 1))
        return items

    def _mapping(self, depth: int) -> dict[str, Any]:
        data: dict[str, Any] = {}
        while type(event := self._next()) is not yaml.MappingEndEvent:
            if type(event) is not yaml.ScalarEvent or event.anchor or event.tag or event.value in data:
                raise UnusualYAMLError
            data[event.value] = self.value(self._next(), depth)
        return data


def objects_with_lines(path: Path, text: str) -> Iterator[tuple[Any, Lines]]:
    """Every document of a text as plain data, with the line of each field.

    Raises:
        ManifestError: the text is not YAML, or contains YAML that a manifest must not contain.
    """
    loader = _Loader(path, text)
    try:
        while loader.check_node():
            node = loader.get_node()
            if node is not None:
                yield _Construct(path).document(node)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        if mark is not None and mark.line >= len(text.splitlines()) and error.context_mark is not None:
            mark = error.context_mark  # for an unfinished block, its beginning is more useful than the end of the file
        what = " ".join(filter(None, (error.context, error.problem)))
        raise ManifestError(f"is not YAML: {what}", path=str(path), line=mark.line + 1 if mark else 0) from None
    except yaml.YAMLError as error:
        raise ManifestError(f"is not YAML: {error}", path=str(path)) from None
    finally:
        loader.dispose()


class _Loader(_SafeLoader):  # type: ignore[misc]
    """Stops at a depth. PyYAML calls these two methods when it enters and leaves a node."""

    def __init__(self, path: Path, text: str) -> None:
        super().__init__(text)
        self._path = path
        self._depth = 0

    def descend_resolver(self, parent: yaml.Node | None, index: Any) -> None:
        self._depth += 1
        if self._depth > MAX_DEPTH + 1 and parent is not None:
            raise _too_deep(self._path, parent)
        super().descend_resolver(parent, index)

    def ascend_resolver(self) -> None:
        self._depth -= 1
        super().ascend_resolver()


def _too_deep(path: Path, node: yaml.Node, question: str = "") -> ManifestError:
    problem = f"is nested more than {MAX_DEPTH} levels deep{question}"
    return ManifestError(problem, path=str(path), line=node.start_mark.line + 1)


@dataclass(slots=True)
class _Construct:
    """Builds plain data from composed nodes, because only nodes know their lines."""

    path: Path
    lines: Lines = field(default_factory=dict)
    nodes: int = 0

    def document(self, node: yaml.Node) -> tuple[Any, Lines]:
        return self._value(node, ()), self.lines

    def _value(self, node: yaml.Node, at: tuple[str | int, ...]) -> Any:
        self.nodes += 1
        if self.nodes > MAX_NODES:
            raise ManifestError("contains too many nodes; check its aliases", path=str(self.path))
        if len(at) > MAX_DEPTH:
            raise _too_deep(self.path, node, "; does an alias lead back to itself?")
        self.lines.setdefault(at, node.start_mark.line + 1)
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, at)
        if isinstance(node, yaml.SequenceNode):
            return [self._value(item, (*at, index)) for index, item in enumerate(node.value)]
        return _scalar(node)

    def _mapping(self, node: yaml.MappingNode, at: tuple[str | int, ...]) -> dict[str, Any]:
        data: dict[str, Any] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode):
                raise ManifestError("a field's name must be text", path=str(self.path), line=line)
            name = str(key_node.value)
            if name in data:
                raise ManifestError(f"the field {name!r} is given twice", path=str(self.path), line=line)
            self.lines[(*at, name)] = line
            data[name] = self._value(value_node, (*at, name))
        return data


# Booleans of YAML 1.1 that PyYAML reads as text, but kubectl does not. Both must refuse the same files.
_LETTERS = {"y": True, "Y": True, "n": False, "N": False}


def _scalar(node: yaml.Node) -> Any:
    if node.tag == "tag:yaml.org,2002:timestamp":
        return node.value  # a date without quotes is text, as for the API server
    if node.tag == "tag:yaml.org,2002:str":
        return _LETTERS.get(node.value, node.value) if not getattr(node, "style", None) else node.value
    return yaml.SafeLoader("").construct_object(node)


_resolver = yaml.SafeLoader("")


def _plain(value: str) -> Any:
    """A scalar without quotes and tag, as YAML 1.1 resolves it."""
    return _cached_plain(value) if len(value) <= 64 else _resolve(value)


def _resolve(value: str) -> Any:
    node = yaml.ScalarNode("", value)
    node.tag = _resolver.resolve(yaml.ScalarNode, value, (True, False))  # type: ignore[no-untyped-call]
    return _scalar(node)


_cached_plain = lru_cache(maxsize=4096)(_resolve)
"""A cache, because most scalars are repeated names of fields, kinds and versions."""
