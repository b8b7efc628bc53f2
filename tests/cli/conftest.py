"""Fixtures for the tests of the commands."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import yaml

from tests.support import BusProcess, Subscriber, bus, manifest, subscriber


@pytest.fixture(scope="package")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[BusProcess, Subscriber]]:
    folder = tmp_path_factory.mktemp("manifests")
    with subscriber() as sink:
        objects = [
            manifest("Channel", "orders", bus="demo"),
            manifest("Subscription", "one", channel="orders", subscriber=sink.url()),
        ]
        (folder / "all.yaml").write_text(yaml.safe_dump_all(objects))
        options = ("--driver", "stub", "--forward-headers", "x-tenant")
        with bus(folder, tmp_path_factory.mktemp("state"), *options) as process:
            yield process.wait_served("orders"), sink
