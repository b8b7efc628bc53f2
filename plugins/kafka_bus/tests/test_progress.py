"""The contiguous resolved prefix of a partition, against the simplest thing that says the same."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kafka_bus.progress import Progress


@given(st.lists(st.integers(1, 3), max_size=40), st.data())
def test_the_committable_offset_is_the_first_unresolved_or_the_end(gaps: list[int], data: st.DataObject) -> None:
    progress = Progress()
    offsets: list[int] = []
    for gap in gaps:
        offsets.append((offsets[-1] if offsets else 100) + gap)
        progress.add(offsets[-1])
    resolved: set[int] = set()
    for offset in data.draw(st.permutations(offsets)):
        progress.resolve(offset)
        resolved.add(offset)
        missing = [known for known in offsets if known not in resolved]
        if not missing:
            assert progress.committable == offsets[-1] + 1
        elif missing[0] != offsets[0]:
            before = [known for known in offsets if known < missing[0]]
            assert progress.committable == before[-1] + 1, "never past an unresolved one"
        else:
            assert progress.committable is None
        assert progress.oldest == (missing[0] if missing else None)
        assert progress.unresolved == len(missing)
        assert progress.span == (len([known for known in offsets if known >= missing[0]]) if missing else 0)
