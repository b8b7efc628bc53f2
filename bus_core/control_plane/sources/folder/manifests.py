"""Source: reads manifests from YAML files, checks each object in them, and knows the line of every mistake."""

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
"""From how much likeness on a group is meant as ours: channel.knative.dev has 0.97, messaging.knative.dev 0.68."""

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Document:
    """One object of ours in a file; `index` counts those of the file from 0, and -1 is of no file."""

    path: Path
    data: Mapping[str, Any]
    index: int = -1

    @property
    def key(self) -> ResourceKey:
        return object_key(self.data)

    @property
    def line(self) -> int:
        """The line on which it begins; reads its file again."""
        return self._lines().get((), 0)

    def error(self, problem: Problem) -> ManifestError:
        """The problem with its place in the file; the nearest field that exists gives the line.

        Reads the file again: lines are counted only when there is something to say about them.
        """
        return _placed(self.path, self._lines(), problem)

    def _lines(self) -> Lines:
        if self.index < 0:
            return {}
        try:
            text = self.path.read_text(encoding="utf-8")
            found = list(_ours_with_lines(self.path, text))
        except (OSError, ValueError, ManifestError):
            return {}  # the file has changed meanwhile, and will be read again
        return found[self.index][1] if self.index < len(found) else {}


@dataclass(frozen=True, slots=True)
class File:
    """What a manifest file holds. With any error in `errors` the file counts as broken."""

    path: Path
    documents: tuple[Document, ...] = ()
    errors: tuple[ManifestError, ...] = ()


class Folder:
    """Every manifest file of a folder, read at the first question about it. Not thread-safe.

    Args:
        path: of the folder.
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
        """All files. A resource that stands in two places makes the file that comes later broken, because nobody can
        tell which one is meant."""
        return self._read(all_files=True)

    @functools.cached_property
    def buses(self) -> list[AnyBus]:
        """The Bus and ClusterBus objects of good files. Reads only the files that may hold one: 0.3 s for 10,000."""
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
    """Every `.yaml` and `.yml` file below a folder; hidden files and folders are left out."""
    return Folder(folder)


_BUS = re.compile(rb"\bBus\b|\bClusterBus\b|\\")
"""Every file that holds a Bus matches: YAML can spell the word in another way only with a backslash."""


def _may_hold_bus(path: Path) -> bool:
    try:
        return path.stat().st_size > MAX_FILE or _BUS.search(path.read_bytes()) is not None
    except OSError:
        return True  # it may; reading it says what is wrong


def repetition(document: Document, first: Document) -> ManifestError:
    """The error of a document whose resource stands in an earlier one already."""
    place = f"{first.path}:{first.line}"
    problem = Problem(("metadata", "name"), f"{document.key} also stands at {place}; keep one of the two")
    return document.error(problem)


def list_manifests(folder: Path) -> dict[str, str]:
    """The path of every manifest file below a folder, with a signature that changes when the file does.

    Links to files are followed, so that a link that leads elsewhere counts as a change; links to folders are not. The
    signature holds both times, size and inode: a copy that keeps the old time of modification changes the other time.

    Raises:
        OSError: a folder cannot be read, or went away meanwhile. What is in it must not count as deleted.
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
    """Read one file. Objects of other API groups are left alone: people keep their Deployments beside these.

    A group that looks like a mistyped one of ours is an error: left alone, it would count as a deletion.
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
    """The problem with its place in the file; the nearest field that exists gives the line."""
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
        ManifestError: the document is no object, or a mistyped one of ours.
        KeyError: the same, where `lines` is empty.
    """
    if data is None:
        return
    if not isinstance(data, dict) or "kind" not in data or "apiVersion" not in data:
        raise ManifestError("is no Kubernetes object: apiVersion and kind are required", path=str(path), line=lines[()])
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
        log.debug("left alone: another API group", path=str(path), api_version=data["apiVersion"], kind=data["kind"])
        return
    if data["apiVersion"] != API_VERSION:
        problem = f"{data['apiVersion']!r} is not known; write {API_VERSION}"
        raise ManifestError(problem, path=str(path), line=lines[("apiVersion",)], field="apiVersion")
    if str(data["kind"]) not in _KINDS:
        problem = f"{data['kind']!r} is none of {', '.join(sorted(_KINDS))}"
        raise ManifestError(problem, path=str(path), line=lines[("kind",)], field="kind")
    yield data, lines
