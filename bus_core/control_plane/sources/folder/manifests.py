"""Source: reads manifests from YAML files, checks each object, and finds the line of each mistake."""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bus_core.control_plane.crds.validation import Problem, validate
from bus_core.control_plane.sources.folder.objects import object_key, secret_destinations
from bus_core.control_plane.sources.folder.yaml_objects import Lines, UnusualYAMLError, objects, objects_with_lines
from bus_core.model.errors import ManifestError
from bus_core.model.references import BusReference
from bus_core.model.resources import API_VERSION, GROUP, AnyBus, Bus, Channel, ClusterBus, ResourceKey, from_object
from bus_core.model.suggest import closest
from bus_core.telemetry import get_logger

MAX_FILE = 8 << 20
"""The largest manifest file in bytes."""

_KINDS = frozenset({"Bus", "ClusterBus", "Channel", "Subscription"})
_MISTYPED = 0.88
"""The least similarity of a misspelling of our API group: channel.knative.dev has 0.97, messaging.knative.dev 0.68."""

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Document:
    """One object of our API group in a file. `index` is its position in the file, from 0; -1 without a file."""

    path: Path
    data: Mapping[str, Any]
    index: int = -1

    @property
    def key(self) -> ResourceKey:
        return object_key(self.data)

    @property
    def line(self) -> int:
        """The line on which the object begins. Reads the file again."""
        return self._lines().get((), 0)

    def error(self, problem: Problem) -> ManifestError:
        """An error for the problem, with the line of the nearest existing field.

        Reads the file again, because the first reading does not count lines.
        """
        return _placed(self.path, self._lines(), problem)

    def _lines(self) -> Lines:
        if self.index < 0:
            return {}
        try:
            text = self.path.read_text(encoding="utf-8")
            found = list(_ours_with_lines(self.path, text))
        except (OSError, ValueError, ManifestError):
            return {}  # the file has just changed, and will be read again
        return found[self.index][1] if self.index < len(found) else {}


@dataclass(frozen=True, slots=True)
class File:
    """The content of a manifest file. The file is broken if `errors` is not empty."""

    path: Path
    documents: tuple[Document, ...] = ()
    errors: tuple[ManifestError, ...] = ()


class Folder:
    """Every manifest file of a folder, read when first needed. Not thread-safe.

    Args:
        path: the folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.exists = path.is_dir()

    @property
    def documents(self) -> list[Document]:
        return [document for file in self.files for document in file.documents]

    @property
    def errors(self) -> list[ManifestError]:
        return [error for file in self.files for error in file.errors]

    @functools.cached_property
    def files(self) -> tuple[File, ...]:
        """All files. If two files contain the same resource, the later file counts as broken."""
        return self._read(all_files=True)

    @functools.cached_property
    def buses(self) -> list[AnyBus]:
        """The Bus and ClusterBus objects of valid files. Reads only files that may contain one: 0.3 s for 10,000."""
        found = [from_object(document.data) for file in self._read(all_files=False) for document in file.documents]
        return [resource for resource in found if isinstance(resource, Bus | ClusterBus)]

    def names_bus(self, bus: BusReference) -> bool:
        """Whether any channel names this bus. Reads files until one does."""
        for path in self._paths():
            for document in read_file(path).documents:
                resource = from_object(document.data)
                if isinstance(resource, Channel) and resource.bus == bus:
                    return True
        return False

    def _read(self, *, all_files: bool) -> tuple[File, ...]:
        try:
            paths = self._paths()
        except OSError as error:
            path = Path(error.filename or self.path)
            return (File(path, errors=(_unreadable(path, error),)),)
        seen: dict[ResourceKey, Document] = {}
        files = []
        for path in paths:
            if not all_files and not _may_hold_bus(path):
                continue
            file = read_file(path)
            repeated = []
            for document in file.documents:
                first = seen.setdefault(document.key, document)
                if first is not document:
                    repeated.append(repetition(document, first))
            files.append(File(path, (), tuple(repeated)) if repeated else file)
        return tuple(files)

    def _paths(self) -> list[Path]:
        return sorted(map(Path, list_manifests(self.path))) if self.exists else []


def read_folder(folder: Path) -> Folder:
    """Every `.yaml` and `.yml` file below a folder, except in hidden folders, and except hidden files."""
    return Folder(folder)


_BUS = re.compile(rb"\bBus\b|\bClusterBus\b|\\")
"""Matches every file that contains a Bus. YAML can spell the word differently only with a backslash."""


def _may_hold_bus(path: Path) -> bool:
    try:
        return path.stat().st_size > MAX_FILE or _BUS.search(path.read_bytes()) is not None
    except OSError:
        return True  # perhaps; reading the file later reports the error


def repetition(document: Document, first: Document) -> ManifestError:
    """The error of a document that repeats the resource of an earlier one."""
    place = f"{first.path}:{first.line}"
    problem = Problem(("metadata", "name"), f"{document.key} is already defined at {place}; remove one of the two")
    return document.error(problem)


def list_manifests(folder: Path) -> dict[str, str]:
    """The path of every manifest file below a folder, with a signature that changes with the file.

    It follows links to files, so a changed link counts as a change, but not links to folders. The signature contains
    mtime, ctime, size and inode: a copy that keeps the mtime changes the ctime.

    Raises:
        OSError: a folder cannot be read, or has just vanished. Its resources must not count as deleted.
    """
    found: dict[str, str] = {}
    folders = [str(folder)]
    while folders:
        with os.scandir(folders.pop()) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.path)
                elif entry.name.endswith((".yaml", ".yml")) and entry.is_file():
                    held = entry.stat()
                    found[entry.path.removeprefix("./")] = (
                        f"{held.st_mtime_ns} {held.st_ctime_ns} {held.st_size} {held.st_ino}"
                    )
    return found


def read_file(path: Path) -> File:
    """Read one file. Objects of other API groups, such as Deployments, are ignored.

    A misspelling of our API group is an error: if it were ignored, the resource would count as deleted.
    """
    try:
        if path.stat().st_size > MAX_FILE:
            raise ManifestError(f"is larger than {MAX_FILE >> 20} MiB; split it", path=str(path))
        text = path.read_text(encoding="utf-8")
        try:
            found = [data for document in objects(text) for data, _ in _ours(path, document, {})]
            if any(validate(data) or any(secret_destinations(data)) for data in found):
                raise UnusualYAMLError
        except (UnusualYAMLError, KeyError):  # a line is missing: there is a mistake
            return _read_with_lines(path, text)
    except ManifestError as error:
        return File(path, errors=(error,))
    except UnicodeDecodeError as error:
        return File(path, errors=(ManifestError(f"is not UTF-8 text: {error.reason}", path=str(path)),))
    except OSError as error:
        return File(path, errors=(_unreadable(path, error),))
    return File(path, tuple(Document(path, data, index) for index, data in enumerate(found)))


def _unreadable(path: Path, error: OSError) -> ManifestError:
    return ManifestError(f"cannot be read: {error.strerror}", path=str(path))


def _read_with_lines(path: Path, text: str) -> File:
    documents, errors = [], []
    for index, (data, lines) in enumerate(_ours_with_lines(path, text)):
        document = Document(path, data, index)
        documents.append(document)
        for problem in (*validate(data), *secret_destinations(data)):
            errors.append(_placed(path, lines, problem))
    return File(path, () if errors else tuple(documents), tuple(errors))


def _placed(path: Path, lines: Lines, problem: Problem) -> ManifestError:
    """An error for the problem, with the line of the nearest existing field."""
    at = problem.path
    while at and at not in lines:
        at = at[:-1]
    return ManifestError(problem.message, path=str(path), line=lines.get(at, 0), field=problem.field)


def _ours_with_lines(path: Path, text: str) -> Iterator[tuple[dict[str, Any], Lines]]:
    for data, lines in objects_with_lines(path, text):
        yield from _ours(path, data, lines)


def _ours(path: Path, data: Any, lines: Lines) -> Iterator[tuple[dict[str, Any], Lines]]:
    """The objects of our API group in a document.

    Raises:
        ManifestError: the document is not an object, or misspells our API group.
        KeyError: the same, if `lines` is empty.
    """
    if data is None:
        return
    if not isinstance(data, dict) or "kind" not in data or "apiVersion" not in data:
        raise ManifestError(
            "is not a Kubernetes object: apiVersion and kind are required", path=str(path), line=lines[()]
        )
    if data["kind"] == "List" and isinstance(data.get("items"), list):
        for index, item in enumerate(data["items"]):
            inner = {key[2:]: line for key, line in lines.items() if key[:2] == ("items", index)}
            yield from _ours(path, item, inner)
        return
    group = str(data["apiVersion"]).partition("/")[0]
    if group != GROUP:
        if str(data["kind"]) in _KINDS and closest(group.lower(), [GROUP], cutoff=_MISTYPED):
            problem = f"{data['apiVersion']!r} is not known; did you mean {API_VERSION}?"
            raise ManifestError(problem, path=str(path), line=lines[("apiVersion",)], field="apiVersion")
        log.debug("ignored: another API group", path=str(path), api_version=data["apiVersion"], kind=data["kind"])
        return
    if data["apiVersion"] != API_VERSION:
        problem = f"{data['apiVersion']!r} is not known; write {API_VERSION}"
        raise ManifestError(problem, path=str(path), line=lines[("apiVersion",)], field="apiVersion")
    if str(data["kind"]) not in _KINDS:
        problem = f"{data['kind']!r} must be one of {', '.join(sorted(_KINDS))}"
        raise ManifestError(problem, path=str(path), line=lines[("kind",)], field="kind")
    yield data, lines
