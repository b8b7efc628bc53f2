"""The offset tracker, compared with the simplest computation of the same result."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kafka_bus.offset_tracker import OffsetTracker


@given(st.lists(st.integers(1, 3), max_size=40), st.data())
def test_the_committable_offset_is_the_first_unresolved_or_the_end(gaps: list[int], data: st.DataObject) -> None:
    tracker = OffsetTracker()
    offsets: list[int] = []
    for gap in gaps:
        offsets.append((offsets[-1] if offsets else 100) + gap)
        tracker.add(offsets[-1])
    resolved: set[int] = set()
    for offset in data.draw(st.permutations(offsets)):
        tracker.resolve(offset)
        resolved.add(offset)
        missing = [known for known in offsets if known not in resolved]
        if not missing:
            assert tracker.committable == offsets[-1] + 1
        elif missing[0] != offsets[0]:
            before = [known for known in offsets if known < missing[0]]
            assert tracker.committable == before[-1] + 1, "never past an unresolved one"
        else:
            assert tracker.committable is None
        assert tracker.oldest == (missing[0] if missing else None)
        assert tracker.unresolved == len(missing)
        assert tracker.span == (len([known for known in offsets if known >= missing[0]]) if missing else 0)
