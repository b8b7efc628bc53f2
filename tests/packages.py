"""Makes driver packages that are installed as far as importlib.metadata can tell, without building anything."""

from __future__ import annotations

import textwrap
from pathlib import Path

RECORDING = '''
"""A driver that writes down every call, one line each: process id, hook, what it was about, its uid, the moment."""
import os
import threading
import time
from bus_core import hookimpl


def _what(resource):
    return resource.uid + str(sorted(resource.spec.arguments.items())).replace(" ", "")


class RecordingBus:
    api = 1

    def __init__(self, context):
        self._publish = context.publish
        context.exit_stack.callback(self._record, "closed", "")
        threading.Thread(target=self._watch, args=(context.stopping,), daemon=True).start()

    def _watch(self, stopping):
        stopping.wait()
        self._record("stopping", "")

    def _record(self, hook, what, uid="-"):
        with open(os.environ["RECORD"], "a") as file:
            file.write(f"{os.getpid()} {hook} {what} {uid} {time.monotonic()}\\n")

    @hookimpl
    def sync_bus(self, bus):
        self._record("sync_bus", bus.name)

    @hookimpl
    def provision(self, channel):
        self._record("provision", channel.name, _what(channel))

    @hookimpl
    def unprovision(self, channel):
        self._record("unprovision", channel.name, _what(channel))

    @hookimpl
    def subscribe(self, channel, subscription):
        self._record("subscribe", subscription.name, _what(channel) + _what(subscription))

    @hookimpl
    def unsubscribe(self, subscription):
        self._record("unsubscribe", subscription.name, _what(subscription))

    @hookimpl
    def receive(self, channel, message):
        self._record("receive", channel.name)
        self._publish(channel, message)
'''


def make_package(
    folder: Path, name: str, source: str, *, driver: str, value: str, summary: str = "A test driver"
) -> Path:
    """A module NAME and the metadata of a package with one entry point; put `folder` on PYTHONPATH."""
    folder.mkdir(parents=True, exist_ok=True)
    module = value.partition(":")[0]
    (folder / f"{module}.py").write_text(textwrap.dedent(source))
    info = folder / f"{name.replace('-', '_')}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\nSummary: {summary}\n")
    (info / "entry_points.txt").write_text(f"[bus_core.drivers]\n{driver} = {value}\n")
    return folder


def recording_package(folder: Path) -> Path:
    return make_package(folder, "recording-bus", RECORDING, driver="recording", value="recording_bus:RecordingBus")
