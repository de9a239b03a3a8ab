"""The count sketch of waiting keys in plain Python: the oracle of embtables/native/keys/count_sketch.h."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from embtables.ids.mix import mix_one

BUCKETS = 1024
ROWS = 4


@dataclass
class _Bucket:
    span: int = 0
    met: int = 0
    current: dict[tuple[int, int, int], int] = field(default_factory=dict)  # (block, row, counter) -> count
    previous: dict[tuple[int, int, int], int] = field(default_factory=dict)

    def exchange(self) -> None:
        self.previous, self.current, self.met = self.current, {}, 0


class CountSketch:
    """Room for `max_waiting` keys, counts up to `most`, spans of `ttl` seconds (None: without end)."""

    def __init__(self, max_waiting: int, most: int, ttl: int | None) -> None:
        self._bits = 4 if most < 16 else 8 if most < 256 else 16
        self._most = most
        self._ttl = ttl
        self._share = -(-max_waiting // (2 * BUCKETS))
        self._blocks = -(-self._share // (64 // self._bits))
        self._buckets: dict[int, _Bucket] = {}

    def add(self, mixed: int, now: int) -> int:
        """Counts one occurrence of a key, by its mix; the count with it, at most `most`."""
        bucket = self._buckets.setdefault(mixed >> 54, _Bucket())
        span = 0 if self._ttl is None else now // self._ttl
        for _ in range(min(span - bucket.span, 2)):
            bucket.exchange()
        bucket.span = span
        places = self._places(mix_one(mixed))
        counted = min(bucket.current.get(p, 0) for p in places)
        before = counted + min(bucket.previous.get(p, 0) for p in places)
        raised = min(counted + 1, 2**self._bits - 1)
        bucket.current |= {p: max(raised, bucket.current.get(p, 0)) for p in places}
        bucket.met += before == 0
        if bucket.met >= self._share:
            bucket.exchange()
        return min(before + 1, self._most)

    def save(self) -> npt.NDArray[np.uint8]:
        """All of it, laid out as the native sketch lays itself out; of no consequence which half lies first."""
        heads = np.zeros((BUCKETS, 3), np.uint32)
        words = np.zeros((BUCKETS, 2, self._blocks, 8), np.uint64)
        for number, bucket in self._buckets.items():
            heads[number] = bucket.span, bucket.met, 0
            for half, counts in enumerate((bucket.current, bucket.previous)):
                for (block, row, counter), count in counts.items():
                    bit = 128 * row + counter * self._bits
                    words[number, half, block, bit // 64] |= np.uint64(count << bit % 64)
        return np.concatenate([heads.reshape(-1).view(np.uint8), words.reshape(-1).view(np.uint8)])

    def restore(self, saved: npt.NDArray[np.uint8]) -> None:
        """Puts back what `save` gave."""
        heads = saved[: BUCKETS * 12].view(np.uint32).reshape(BUCKETS, 3)
        words = saved[BUCKETS * 12 :].view(np.uint64).reshape(BUCKETS, 2, self._blocks, 8)
        self._buckets = {}
        for number, (span, met, current) in enumerate(heads.tolist()):
            halves = [self._counts(words[number, half]) for half in (current, 1 - current)]
            self._buckets[number] = _Bucket(span, met, *halves)

    def _counts(self, words: npt.NDArray[np.uint64]) -> dict[tuple[int, int, int], int]:
        found = {}
        for block, word in zip(*np.nonzero(words), strict=True):
            value, first = int(words[block, word]), int(word) % 2 * (64 // self._bits)
            for counter in range(64 // self._bits):
                if count := (value >> counter * self._bits) % 2**self._bits:
                    found[int(block), int(word) // 2, first + counter] = count
        return found

    def _places(self, g: int) -> list[tuple[int, int, int]]:
        block = ((g & 0xFFFFFFFF) * self._blocks) >> 32
        return [(block, row, (g >> (32 + 5 * row)) % (128 // self._bits)) for row in range(ROWS)]
