"""Ids of the newest events, against a list of all."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from embtables.serving.running.recent_ids import RecentIds

BATCHES = st.lists(st.lists(st.integers(-12, 12), max_size=9), max_size=30)


@settings(deadline=None, max_examples=200)
@given(BATCHES, st.integers(1, 12), st.integers(0, 30))
def test_the_newest_are_known_and_what_was_never_seen_is_not(batches: list[list[int]], size: int, restart: int) -> None:
    ids, fresh_ones = RecentIds(size), list[int]()  # those that were seen for the first time, the newest last
    for number, batch in enumerate(batches):
        if number == restart:
            arrays = {name: array.copy() for name, array in ids.arrays().items()}
            ids = RecentIds(size)
            ids.load(arrays)
        found = ids.take(np.array(batch, np.int64))
        for place, (value, is_fresh) in enumerate(zip(batch, found.tolist(), strict=True)):
            if value in batch[:place] or value in fresh_ones[-size:]:
                assert not is_fresh
            if value not in fresh_ones and value not in batch[:place]:
                assert is_fresh
        fresh_ones += [value for value, is_fresh in zip(batch, found.tolist(), strict=True) if is_fresh]


def test_a_million_events_take_a_bounded_room() -> None:
    ids, rng = RecentIds(1 << 15), np.random.default_rng(0)
    numbers = rng.permutation(1 << 18).astype(np.int64)
    for start in range(0, len(numbers), 4096):
        assert ids.take(numbers[start : start + 4096]).all()
        assert not ids.take(numbers[max(0, start - 8192) : start + 4096]).any()
    assert sum(len(array) for array in ids.arrays().values()) < 3 << 15
