"""The native joiner: keys and windows against a dictionary while its arrays grow, and what it takes of memory."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embtables.native import _core

WINDOW, LATE = 1024 * 10, 1024 * 20
OPENED, JOINED, OVERDUE, CORRECTED, DUPLICATE, WAITING, TOO_LATE, TOO_EARLY = range(8)


def call(
    of: Any, entry: int, keys: npt.ArrayLike, times: npt.ArrayLike, rows: npt.ArrayLike | None = None
) -> tuple[list[int], list[tuple[int, int]]]:
    keys = np.asarray(keys, np.uint64)
    n = len(keys)
    outcomes, entries, found = np.empty(n, np.uint8), np.empty(n, np.uint32), np.empty(n, np.uint32)
    rows = np.arange(n) if rows is None else rows
    of(entry, keys, np.asarray(times, np.int64), np.asarray(rows, np.uint32), outcomes, entries, found)
    return outcomes.tolist(), list(zip(entries.tolist(), found.tolist(), strict=True))


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 2**32), keys=st.sampled_from([10, 3000, 50_000]))
def test_keys_are_found_while_it_grows_and_shrinks(seed: int, keys: int) -> None:
    """Against a dictionary: impressions of random keys, actions on some, windows that close; many times 2^10 keys."""
    rng = np.random.default_rng(seed)
    joiner = _core.Joiner(WINDOW, LATE, 0)
    seen: dict[int, tuple[int, int, int, str]] = {}  # key: time, entry, row, state
    now = 0
    for _ in range(12):
        entry = joiner.hold()
        of = rng.integers(0, keys, rng.integers(1, keys), np.uint64)
        times = now + rng.integers(-20, 20, len(of))
        outcomes, _ = call(joiner.impressions, entry, of, times)
        for row, (key, time, outcome) in enumerate(zip(of.tolist(), times.tolist(), outcomes, strict=True)):
            assert outcome == (DUPLICATE if key in seen else OPENED)
            seen.setdefault(key, (time, entry, row, "open"))
        acted = rng.choice(of, len(of) // 3)
        outcomes, payloads = call(joiner.actions, entry, acted, np.full(len(acted), now + 20))
        for key, outcome, payload in zip(acted.tolist(), outcomes, payloads, strict=True):
            time, its_entry, row, state = seen[key]
            lag = now + 20 - time
            if state in ("positive", "overdue" if lag > WINDOW else "none"):
                assert outcome == DUPLICATE
            elif lag > WINDOW + LATE:
                assert outcome == TOO_LATE
            elif lag > WINDOW and state == "open":
                assert outcome == OVERDUE
                seen[key] = (time, its_entry, row, "overdue")
            else:
                assert (outcome, payload) == (CORRECTED if state == "negative" else JOINED, (its_entry, row))
                seen[key] = (time, its_entry, row, "positive")
        joiner.release(entry)
        now += int(rng.choice([100, 5000, 60_000]))
        closed = []
        done = False
        while not done:
            of, times, _, _, corrected, *_, done = joiner.advance(now, 100)
            closed += list(zip(of.tolist(), times.tolist(), corrected.tolist(), strict=True))
        expected = [
            (key, time, int(state == "overdue"))
            for key, (time, _, _, state) in seen.items()
            if time <= (now - WINDOW) // 10 * 10 and state in ("open", "overdue")
        ]
        assert closed == sorted(expected, key=lambda each: (each[1], each[0]))
        for key, time, was_overdue in expected:
            seen[key] = (time, *seen[key][1:3], "positive" if was_overdue else "negative")
        seen = {key: of_key for key, of_key in seen.items() if of_key[0] > (now - WINDOW - LATE) // 30 * 30}
        assert joiner.size == len(seen)


def filled(n: int) -> _core.Joiner:
    joiner = _core.Joiner(WINDOW, LATE, 0)
    rng = np.random.default_rng(0)
    entry = joiner.hold()
    for first in range(0, n, 50_000):
        part = rng.integers(0, 2**64, min(50_000, n - first), np.uint64)
        call(joiner.impressions, entry, part, rng.integers(0, WINDOW, len(part)))
    joiner.release(entry)
    return joiner


@pytest.mark.parametrize(("n", "most"), [(700_000, 40), (1_250_000, 40), (1_600_000, 45)])
def test_an_open_impression_takes_less_than_40_bytes(n: int, most: int) -> None:
    """28 of the record, and 4 for each place of a map that is at most 3/4 full; while it grows, there are two maps."""
    joiner = filled(n)
    assert joiner.size == n
    assert 28 * n < joiner.bytes < most * n


def test_what_was_forgotten_makes_room() -> None:
    joiner = filled(200_000)
    before = joiner.bytes
    for round_ in range(1, 5):
        time = round_ * 10 * (WINDOW + LATE)
        done = False
        while not done:
            *_, done = joiner.advance(time, 1_000_000)
        assert joiner.size == 0
        entry = joiner.hold()
        call(joiner.impressions, entry, np.arange(200_000) * 7919, np.full(200_000, time))
    assert joiner.bytes < 1.2 * before


def test_closing_is_given_in_parts_and_goes_on_after_a_restart() -> None:
    whole, parts = filled(20_000), filled(20_000)
    expected = whole.advance(10 * WINDOW, 2**40)
    keys: list[int] = []
    done = False
    while not done:
        found = parts.advance(10 * WINDOW, 1000)
        done = found[-1]
        assert len(found[0]) <= 1000 + 100  # a step holds about 20
        keys += found[0].tolist()
        saved = parts.save()
        parts = _core.Joiner(WINDOW, LATE, 0)
        parts.load(*saved, int(len(saved[0]) > 0), 10 * WINDOW)
    assert keys == expected[0].tolist()
    assert [each.tolist() for each in parts.save()] == [each.tolist() for each in whole.save()]


def test_the_entry_of_a_payload_is_held_until_nothing_needs_it() -> None:
    joiner = _core.Joiner(WINDOW, LATE, 0)
    first, second = joiner.hold(), joiner.hold()
    call(joiner.impressions, first, [1, 2], [0, 0])
    call(joiner.actions, second, [1, 3], [5, 5])
    joiner.release(first)
    joiner.release(second)
    assert joiner.take_freed().tolist() == []  # 2 is open in the first, and 3 waits in the second
    joiner.advance(WINDOW + 100, 10)
    assert joiner.take_freed().tolist() == [second]
    assert joiner.hold() == second
    call(joiner.actions, second, [2], [WINDOW + 5])
    assert joiner.take_freed().tolist() == [first]
    with pytest.raises(ValueError, match="held"):
        joiner.release(first)


@pytest.mark.parametrize(
    ("keys", "times", "rows", "entry"),
    [([1], [2**60 + 1], [0], 0), ([1], [0], [2**29], 0), ([1], [0], [0], 1), ([1, 2], [0], [0], 0)],
)
def test_events_that_no_entry_has_are_refused(keys: list[int], times: list[int], rows: list[int], entry: int) -> None:
    joiner = _core.Joiner(WINDOW, LATE, 0)
    joiner.hold()
    for of in (joiner.impressions, joiner.actions):
        with pytest.raises(ValueError, match=r"times|rows|held|keys"):
            call(of, entry, keys, times, rows)
    assert joiner.size == 0
