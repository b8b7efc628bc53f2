"""Fixtures for all tests: the order of locks is recorded, and a cycle in it fails the test that closes it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.house.lock_order import LockOrder

_order = LockOrder()
_known: set[str] = set()


@pytest.fixture(autouse=True)
def lock_order() -> Iterator[None]:
    """Fails a test after which two locks have been taken in both orders by now."""
    _order.install()
    try:
        yield
    finally:
        _order.remove()
    fresh = set(_order.cycles()) - _known
    _known.update(fresh)
    assert not fresh
