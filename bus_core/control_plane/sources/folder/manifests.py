"""Reads manifests from YAML files, and knows the line of everything in them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from bus_core.control_plane.crds.validation import Problem, validate
from bus_core.model.errors import ManifestError
from bus_core.model.references import DEFAULT_NAMESPACE
from bus_core.model.resources import API_VERSION, GROUP, ResourceKey
from bus_core.model.suggest import closest
from bus_core.telemetry import get_logger

MAX_FILE = 8 << 20
"""The largest manifest file in bytes."""

MAX_NODES = 500_000
"""How many nodes a file may hold once its aliases are followed: a few lines of aliases can stand for billions."""

MAX_DEPTH = 64
"""How deep a file may nest, aliases followed: an alias may lead back to itself, and PyYAML's C code has one stack."""

_KINDS = frozenset({"Bus", "ClusterBus", "Channel", "Subscription"})
_MISTYPED = 0.88
"""From how much likeness on a group is meant as ours: channel.knative.dev has 0.97, messaging.knative.dev 0.68."""

_SafeLoader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Document:
    """One object of ours in a file: its data, and the line on which each of its fields begins."""

    path: Path
    data: Mapping[str, Any]
    lines: Mapping[tuple[str | int, ...], int]

    @property
    def key(self) -> ResourceKey:
        kind, metadata = self.data["kind"], self.data["metadata"]
        namespace = "" if kind == "ClusterBus" else metadata.get("namespace") or DEFAULT_NAMESPACE
        return ResourceKey(kind, namespace, metadata["name"])

    def error(self, problem: Problem) -> ManifestError:
        """The problem with its place in the file; the nearest field that exists gives the line."""
        path = problem.path
        while path and path not in self.lines:
            path = path[:-1]
        return ManifestError(problem.message, path=str(self.path), line=self.lines.get(path, 0), field=problem.field)


@dataclass(frozen=True, slots=True)
class File:
    """What a manifest file holds. With any error in `errors` the file counts as broken."""

    path: Path
    documents: tuple[Document, ...] = ()
    errors: tuple[ManifestError, ...] = ()


@dataclass(frozen=True, slots=True)
class Folder:
    """Every manifest file of a folder; `exists` is False when the folder itself is missing."""

    path: Path
    files: tuple[File, ...] = ()
    exists: bool = True

    @property
    def documents(self) -> list[Document]:
        return [document for file in self.files for document in file.documents]

    @property
    def errors(self) -> list[ManifestError]:
        return [error for file in self.files for error in file.errors]


def read_folder(folder: Path) -> Folder:
    """Read every `.yaml` and `.yml` file below a folder; hidden files and folders are left out.

    A resource that stands in two places makes the file that comes later broken: which one is meant nobody can tell.
    """
    if not folder.is_dir():
        return Folder(folder, exists=False)
    seen: dict[ResourceKey, Document] = {}
    files = []
    for path in sorted(_manifests(folder)):
        file = read_file(path)
        repeated = []
        for document in file.documents:
            first = seen.setdefault(document.key, document)
            if first is not document:
                place = f"{first.path}:{first.lines[()]}"
                problem = Problem(("metadata", "name"), f"{document.key} also stands at {place}; keep one of the two")
                repeated.append(document.error(problem))
        files.append(File(path, (), tuple(repeated)) if repeated else file)
    return Folder(folder, tuple(files))


def read_file(path: Path) -> File:
    """Read one file. Objects of other API groups are left alone: people keep their Deployments beside these.

    A group that looks like a mistyped one of ours is an error: left alone, it would count as a deletion.
    """
    try:
        if path.stat().st_size > MAX_FILE:
            raise ManifestError(f"is larger than {MAX_FILE >> 20} MiB; split it", path=str(path))
        documents = list(_documents(path, path.read_text(encoding="utf-8")))
    except ManifestError as error:
        return File(path, errors=(error,))
    except UnicodeDecodeError as error:
        return File(path, errors=(ManifestError(f"is not UTF-8 text: {error.reason}", path=str(path)),))
    except OSError as error:
        return File(path, errors=(ManifestError(f"cannot be read: {error.strerror}", path=str(path)),))
    errors = tuple(document.error(problem) for document in documents for problem in validate(document.data))
    return File(path, () if errors else tuple(documents), errors)


def _manifests(folder: Path) -> Iterator[Path]:
    for path in folder.rglob("*"):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if path.suffix in (".yaml", ".yml") and not hidden and path.is_file():
            yield path


class _Loader(_SafeLoader):  # type: ignore[misc]
    """Stops at a depth; PyYAML calls these two on the way into each node and out again."""

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


def _documents(path: Path, text: str) -> Iterator[Document]:
    loader = _Loader(path, text)
    try:
        while loader.check_node():
            node = loader.get_node()
            if node is not None:
                yield from _objects(path, *_Construct(path).document(node))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        if mark is not None and mark.line >= len(text.splitlines()) and error.context_mark is not None:
            mark = error.context_mark  # at the end of a file what was begun and not ended says more
        what = " ".join(filter(None, (error.context, error.problem)))
        raise ManifestError(f"is not YAML: {what}", path=str(path), line=mark.line + 1 if mark else 0) from None
    except yaml.YAMLError as error:
        raise ManifestError(f"is not YAML: {error}", path=str(path)) from None
    finally:
        loader.dispose()


def _objects(path: Path, data: Any, lines: dict[tuple[str | int, ...], int]) -> Iterator[Document]:
    if data is None:
        return
    if not isinstance(data, dict) or "kind" not in data or "apiVersion" not in data:
        raise ManifestError("is no Kubernetes object: apiVersion and kind are required", path=str(path), line=lines[()])
    if data["kind"] == "List" and isinstance(data.get("items"), list):
        for index, item in enumerate(data["items"]):
            inner = {key[2:]: line for key, line in lines.items() if key[:2] == ("items", index)}
            yield from _objects(path, item, inner)
        return
    group = str(data["apiVersion"]).partition("/")[0]
    if group != GROUP:
        if str(data["kind"]) in _KINDS and closest(group.lower(), [GROUP], cutoff=_MISTYPED):
            problem = f"{data['apiVersion']!r} is not known; did you mean {API_VERSION}?"
            raise ManifestError(problem, path=str(path), line=lines[("apiVersion",)], field="apiVersion")
        log.debug("left alone: another API group", path=str(path), api_version=data["apiVersion"], kind=data["kind"])
        return
    if data["apiVersion"] != API_VERSION:
        problem = f"{data['apiVersion']!r} is not known; write {API_VERSION}"
        raise ManifestError(problem, path=str(path), line=lines[("apiVersion",)], field="apiVersion")
    if str(data["kind"]) not in _KINDS:
        problem = f"{data['kind']!r} is none of {', '.join(sorted(_KINDS))}"
        raise ManifestError(problem, path=str(path), line=lines[("kind",)], field="kind")
    yield Document(path, data, lines)


@dataclass(slots=True)
class _Construct:
    """Builds plain data from composed nodes, because only nodes know their lines."""

    path: Path
    lines: dict[tuple[str | int, ...], int] = field(default_factory=dict)
    nodes: int = 0

    def document(self, node: yaml.Node) -> tuple[Any, dict[tuple[str | int, ...], int]]:
        return self._value(node, ()), self.lines

    def _value(self, node: yaml.Node, at: tuple[str | int, ...]) -> Any:
        self.nodes += 1
        if self.nodes > MAX_NODES:
            raise ManifestError("holds too many nodes; are its aliases meant?", path=str(self.path))
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


_scalars = yaml.SafeLoader("")

# Booleans of YAML 1.1 that PyYAML takes for text and kubectl does not: here and there the same must be refused.
_LETTERS = {"y": True, "Y": True, "n": False, "N": False}


def _scalar(node: yaml.Node) -> Any:
    if node.tag == "tag:yaml.org,2002:timestamp":
        return node.value  # a date without quotes is text, as it is to the API server
    if node.value in _LETTERS and not getattr(node, "style", None) and node.tag == "tag:yaml.org,2002:str":
        return _LETTERS[node.value]
    return _scalars.construct_object(node)
