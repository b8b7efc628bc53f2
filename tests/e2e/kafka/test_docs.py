"""What the Kafka page and the driver's own README tell people to type, typed against a real broker."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs.reader import Reader
from tests.e2e.kafka.cluster import Cluster
from tests.support import ROOT


@pytest.mark.parametrize("page", ["docs/kafka.md", "plugins/kafka_bus/README.md"])
def test_the_blocks_of_a_page_run_in_order(page: str, kafka: Cluster, tmp_path: Path) -> None:
    reader = Reader(tmp_path / "reader", {"9092": kafka.bootstrap.rpartition(":")[2]})
    try:
        reader.follow(ROOT / page)
    finally:
        reader.close()
