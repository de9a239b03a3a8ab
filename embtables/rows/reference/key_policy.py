"""Admission and expiry of a collisionless table as a dict: slow and plain, the oracle of the native core.

Within a lookup of training every occurrence is counted before any is looked up. A key that was not seen for longer than
its ttl is as if it had never been seen, whether its entry was removed meanwhile or not.
"""

from __future__ import annotations

from dataclasses import dataclass

from embtables.ids.mix import GOLDEN_GAMMA, mix_one
from embtables.rows.limits import age_bin, limits_of
from embtables.rows.reference.count_sketch import CountSketch
from embtables.schema import CollisionlessTable, MinCount, Probability

_MASK = 2**64 - 1
MAX_COUNT = 65_535


@dataclass
class Entry:
    """A key with its row, or waiting (row None) with its count."""

    row: int | None
    count: int
    seen: int


class KeyPolicy:
    """Which key has which row. Row 0 is the cold row."""

    def __init__(self, config: CollisionlessTable, seed: int, is_part: bool = False) -> None:
        admission = config.admission
        self._config = config
        self._seed = seed
        self.is_part = is_part
        self._min_count = admission.count if isinstance(admission, MinCount) else 1
        self.sketch: CountSketch | None = None
        if isinstance(admission, MinCount) and admission.counting == "sketch":
            self.sketch = CountSketch(admission.max_waiting, admission.count, config.ttl_seconds)
        self._probability = admission.probability if isinstance(admission, Probability) else 1.0
        self._rows_in_step: set[int] = set()
        self._free: list[int] = []
        self._lost: list[tuple[int, int]] = []  # (cut, key)
        self.cut = 1
        self.changed: dict[int, int] = {}  # key -> the cut in which its row last changed
        self.entries: dict[int, Entry] = {}
        self.now = 0
        self.steps = 0
        self.rows_in_use = 1

    def alive(self, key: int) -> Entry | None:
        """The key's entry, if it was seen within the ttl."""
        entry = self.entries.get(key)
        ttl = self._config.ttl_seconds
        return None if entry is None or (ttl is not None and self.now - entry.seen > ttl) else entry

    def row(self, key: int) -> int:
        """The key's row; 0 if it has none."""
        entry = self.alive(key)
        return 0 if entry is None or entry.row is None else entry.row

    @property
    def num_rows(self) -> int:
        """How many keys have a row."""
        return sum(1 for key in self.entries if self.row(key))

    def observe(self, keys: list[int]) -> list[tuple[int, int]]:
        """Counts the keys of one lookup of training, in order. Returns (row, key) of the rows that are to be fresh."""
        known = {key for key in keys if self.row(key)}
        for key in known:
            self.entries[key].seen = self.now
            self.changed[key] = self.cut
            self._rows_in_step.add(self.row(key))
        return [fresh for key in keys if key not in known and (fresh := self._count(key)) is not None]

    def _count(self, key: int) -> tuple[int, int] | None:
        entry = self.alive(key)
        if entry is None and (old := self.entries.pop(key, None)) is not None and old.row is not None:
            self._lose(key, old.row)
        if entry is not None and entry.row is not None:
            return None
        count = 1 if entry is None else min(entry.count + 1, MAX_COUNT)
        if self.sketch is not None:
            count = self.sketch.add(self._mixed(key), self.now)
        fits = self._config.max_rows is None or len(self._rows_in_step) < self._config.max_rows
        if count >= self._min_count and self._drawn(key) and fits:
            row = self._free.pop() if self._free else self.rows_in_use
            self.rows_in_use = max(self.rows_in_use, row + 1)
            self._rows_in_step.add(row)
            self.entries[key] = Entry(row, 0, self.now)
            self.changed[key] = self.cut
            return row, key
        if self._min_count > 1 and self.sketch is None:
            self.entries[key] = Entry(None, count, self.now)
        return None

    def _drawn(self, key: int) -> bool:
        if self._probability >= 1.0:
            return True
        step = mix_one((self._seed + self.steps * GOLDEN_GAMMA) & _MASK)
        return (mix_one(self._mixed(key) ^ step) >> 11) * 2.0**-53 < self._probability

    def _mixed(self, key: int) -> int:
        return mix_one((key + (self._seed + 1) * GOLDEN_GAMMA) & _MASK)

    def _lose(self, key: int, row: int) -> None:
        self._free.append(row)
        self._lost.append((self.cut, key))

    def changes(self, after: int) -> tuple[list[int], list[int]]:
        """Keys whose rows changed after that cut, and keys that lost theirs since and have none; ascending."""
        changed = sorted(key for key in self.entries if self.row(key) and self.changed[key] > after)
        return changed, sorted({key for cut, key in self._lost if cut > after and not self.row(key)})

    def place(self, keys: list[int], seen: list[int]) -> list[int]:
        """Rows for keys of a saved table: those they have, or others."""
        for key, when in zip(keys, seen, strict=True):
            entry = self.entries.get(key)
            row = entry.row if entry is not None else None
            if row is None:
                row = self._free.pop() if self._free else self.rows_in_use
                self.rows_in_use = max(self.rows_in_use, row + 1)
            self.entries[key] = Entry(row, 0, when)
            self.changed[key] = self.cut
        return [self.row_of(key) for key in keys]

    def row_of(self, key: int) -> int:
        """The row of a key that has one, alive or not."""
        row = self.entries[key].row
        assert row is not None
        return row

    def remove(self, key: int) -> None:
        """The key loses its row, or waits no longer."""
        entry = self.entries.pop(key, None)
        if entry is not None and entry.row is not None:
            self._lose(key, entry.row)

    def set_waiting(self, keys: list[int], counts: list[int], seen: list[int]) -> None:
        """Makes these the keys that wait."""
        self.entries = {key: entry for key, entry in self.entries.items() if entry.row is not None}
        counted = zip(keys, counts, seen, strict=True)
        self.entries |= {key: Entry(None, count, when) for key, count, when in counted}

    def end_step(self) -> None:
        """After the update of a step: the limits on rows and on waiting keys."""
        self.steps += 1
        self._rows_in_step.clear()
        if self.is_part:
            return
        max_rows, max_waiting = limits_of(self._config)
        if max_rows is not None:
            self._limit(False, max_rows)
        self._limit(True, max_waiting)

    def _limit(self, waiting: bool, most: int) -> None:
        """Least recently seen first, ties by the mix of the key, down to a thirty-second below the limit."""
        keys = self.held(waiting)
        if len(keys) <= most:
            return
        keys.sort(key=self.order)
        for key in keys[: len(keys) - (most - most // 32)]:
            self.remove(key)

    def held(self, waiting: bool) -> list[int]:
        """The keys alive that have a row, or those that wait."""
        return [k for k in self.entries if (e := self.alive(k)) is not None and (e.row is None) is waiting]

    def order(self, key: int) -> tuple[int, int]:
        """When the key was seen, and its mix: keys go in this order."""
        return self.entries[key].seen, self._mixed(key)

    def bin_of(self, key: int) -> int:
        """The bin of the key's age."""
        return age_bin(self.now - self.entries[key].seen)

    def evict(self, waiting: bool, chosen: int, last: tuple[int, int]) -> None:
        """Keys in older bins go, and of that bin those up to `last`."""
        for key in self.held(waiting):
            if self.bin_of(key) > chosen or (self.bin_of(key) == chosen and self.order(key) <= last):
                self.remove(key)
