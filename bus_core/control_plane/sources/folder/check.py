"""Source: checks manifests without a running bus: schema, destinations, and references between resources."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from bus_core.control_plane.crds.validation import Problem
from bus_core.control_plane.sources.folder.manifests import Document, read_file, read_folder
from bus_core.model.destination import Destination, parse_destination, parse_sink
from bus_core.model.errors import DestinationError, ManifestError
from bus_core.model.references import ChannelReference
from bus_core.model.resources import GROUP, Channel, ResourceKey, Subscription, from_object


def check_manifests(paths: Iterable[Path]) -> tuple[list[ResourceKey], list[ManifestError]]:
    """Check the manifests of several files and folders together.

    Returns:
        The keys of the resources, and the errors. A path without resources is an error.
    """
    documents: list[Document] = []
    errors: list[ManifestError] = []
    for path in paths:
        if not path.exists():
            errors.append(ManifestError("there is no such file or folder", path=str(path)))
            continue
        files = read_folder(path).files if path.is_dir() else (read_file(path),)
        found = [document for file in files for document in file.documents]
        wrong = [error for file in files for error in file.errors]
        if not found and not wrong:
            errors.append(ManifestError(f"contains no resource of {GROUP}", path=str(path)))
        documents += found
        errors += wrong
    # A broken file may contain the missing resource, so missing references are reported only without one.
    dangling = [] if errors else list(_dangling(documents))
    unusable = [document.error(problem) for document in documents for problem in _unusable(document)]
    return [document.key for document in documents], errors + dangling + unusable


def _dangling(documents: list[Document]) -> Iterable[ManifestError]:
    keys = {document.key for document in documents}
    buses = any(key.kind in ("Bus", "ClusterBus") for key in keys)
    for document in documents:
        resource = from_object(document.data)
        if isinstance(resource, Channel) and buses:
            bus = resource.bus
            key = ResourceKey("Bus" if bus.namespace else "ClusterBus", bus.namespace, bus.name)
            if key not in keys:
                field = "bus" if bus.namespace else "clusterBus"
                yield document.error(Problem(("spec", field), f"there is no {key}"))
        if isinstance(resource, Subscription):
            key = ResourceKey("Channel", resource.namespace, resource.spec.channel)
            if key not in keys:
                yield document.error(Problem(("spec", "channel"), f"there is no {key}"))


def _unusable(document: Document) -> Iterable[Problem]:
    """Check destinations. A running bus refuses a bad one: senders would get 202, and the subscriber nothing."""
    resource = from_object(document.data)
    if not isinstance(resource, Channel | Subscription):
        return
    channel = resource.reference if isinstance(resource, Channel) else resource.channel
    spec = document.data["spec"]
    for path, text, read in (
        (("subscriber",), spec.get("subscriber"), _read_destination),
        (("replyTo",), spec.get("replyTo"), _read_destination),
        (("delivery", "deadLetterSink"), resource.spec.delivery.dead_letter_sink, parse_sink),
    ):
        try:
            if text:
                read(text, channel)
        except DestinationError as error:
            yield Problem(("spec", *path), str(error))


def _read_destination(text: str, channel: ChannelReference) -> Destination:
    return parse_destination(text, channel.namespace)
