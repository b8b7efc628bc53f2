"""Brokers for the tests of this folder, and one bus per test on them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.kafka.cluster import Cluster
from tests.e2e.kafka.setting import Setting

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """One broker for all tests that do it no harm."""
    cluster = Cluster(tmp_path_factory.mktemp("kafka"))
    try:
        yield cluster.start()
    finally:
        cluster.stop()


@pytest.fixture
def setting(kafka: Cluster, tmp_path: Path) -> Iterator[Setting]:
    """A bus of its own on that broker."""
    made = Setting(kafka, tmp_path, f"bus-{next(_numbers)}")
    yield made
    made.close()


@pytest.fixture
def lone(tmp_path: Path) -> Iterator[Setting]:
    """A bus on a broker that the test may do harm to."""
    cluster = Cluster(tmp_path / "kafka")
    made = Setting(cluster.start(), tmp_path, "lone")
    try:
        yield made
    finally:
        made.close()
        cluster.stop()


@pytest.fixture
def trio(tmp_path: Path) -> Iterator[Setting]:
    """A bus on three brokers."""
    cluster = Cluster(tmp_path / "kafka", size=3)
    made = Setting(cluster.start(), tmp_path, "trio")
    try:
        yield made
    finally:
        made.close()
        cluster.stop()
