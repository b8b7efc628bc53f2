"""Two hosts share the work: one comes and goes under load, and the order of each key holds."""

from __future__ import annotations

import json
import threading
from collections import defaultdict
from itertools import pairwise

import pytest

from tests.e2e.kafka.setting import Account, Setting
from tests.support import request, subscriber, wait_for

KEYS = 20
ROUNDS = 5


class KeyedLoad:
    """One sender for each of a few keys: it sends the next number once the last was acknowledged."""

    def __init__(self, address: str, channel: str) -> None:
        self.accepted: set[bytes] = set()
        self.sent = 0
        self._address = address
        self._channel = channel
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._send, args=(number,), daemon=True) for number in range(4)]

    def __enter__(self) -> KeyedLoad:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(20)

    def _send(self, share: int) -> None:
        number = 0
        while not self._stop.wait(0.001):
            number += 1
            for key in range(share, KEYS, 4):
                body = json.dumps([key, number]).encode()
                try:
                    answer = request(
                        self._address,
                        host=f"{self._channel}.default",
                        body=body,
                        ce_id=str(number),
                        ce_partitionkey=str(key),
                    )
                except OSError:
                    continue
                with self._lock:
                    self.sent += 1
                    if answer.status == 202:
                        self.accepted.add(body)


def test_one_of_two_hosts_joins_and_leaves_five_times(setting: Setting) -> None:
    with subscriber() as server:
        setting.channel("orders", numPartitions=6)
        setting.subscription("one", "orders", server.url(), ordering="key")
        first = setting.start(served=("orders",))
        with KeyedLoad(first.events, "orders") as load:
            wait_for(lambda: len(load.accepted) > 200, 30)
            for _ in range(ROUNDS):
                second = setting.start(served=("orders",))
                wait_for(lambda second=second: second.metric("bus_deliveries_total") > 20, 30, "it has its share")  # type: ignore[misc]
                assert second.stop() == 0
        wait_for(lambda: set(server.bodies()) >= load.accepted, 60, "everything arrives")
        wait_for(lambda: sum(setting.committed("orders", "one").values()) >= len(load.accepted), 20)
        account = Account.of(load.sent, load.accepted, server.bodies())
        assert not account.lost
        assert account.duplicates < len(load.accepted) / 10
        _check_order(server.bodies())


def _check_order(bodies: list[bytes]) -> None:
    """First deliveries of a key ascend; after a redelivery of n come n+1 and on, ascending: what follows a number is
    the next one that there is, or one that has been delivered before, from which it goes on in the same way."""
    by_key: defaultdict[int, list[int]] = defaultdict(list)
    for body in bodies:
        key, number = json.loads(body)
        by_key[key].append(number)
    for key, numbers in by_key.items():
        there_are = sorted(set(numbers))
        following = dict(pairwise([0, *there_are]))
        previous = 0
        for number in numbers:
            assert number == following.get(previous) or number <= previous, f"key {key}: {number} after {previous}"
            previous = number


@pytest.mark.parametrize("numbers", [[1, 2, 4, 3, 5], [3, 1, 2, 4], [1, 2, 3, 2, 4], [4, 3, 2, 1, 5]])
def test_the_check_of_the_order_can_fail(numbers: list[int]) -> None:
    with pytest.raises(AssertionError):
        _check_order([json.dumps([1, number]).encode() for number in numbers])
    _check_order([json.dumps([1, number]).encode() for number in [1, 2, 3, 2, 3, 5, 6]])
