"""What `bus demo` says where there is no broker. It waits for its 20 seconds, which is why it is here."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

BUS = str(Path(sys.executable).with_name("bus"))


def test_it_names_the_broker_in_its_last_sentence() -> None:
    command = [BUS, "demo", "--once", "--driver", "kafka", "--set", "kafka.brokers=127.0.0.1:1"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 1
    assert "no Kafka broker answers at 127.0.0.1:1" in result.stderr.splitlines()[-1]
