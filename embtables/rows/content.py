"""What a version holds of one table, in memory: numpy arrays in the order of the key space's buckets.

Shape letters: n rows, m waiting keys, t tombstones, D dim.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from embtables.errors import StateError
from embtables.keyspace import Buckets, Keys, bucket_offsets, buckets_of
from embtables.rows.optimizers import WEIGHT
from embtables.rows.row_format import Values
from embtables.rows.sketch import restricted

LEAST_SCALE = 2.0**-32
"""A table's scale is between this and 1 (`TableContent.scale`)."""

Array = npt.NDArray[Any]
Words = npt.NDArray[np.uint32]


@dataclass(frozen=True, slots=True)
class Streamed:
    """A column that is made piece by piece while its file is written.

    Attributes:
        shape: of the whole, (n,) or (n, D).
        dtype: of its values.
        pieces: makes the pieces, in order, along the first axis; each is done with before the next is asked for.
    """

    shape: tuple[int, ...]
    dtype: npt.DTypeLike
    pieces: Callable[[], Iterator[Array]]

    def bytes(self, name: str) -> Iterator[memoryview]:
        """The column's bytes.

        Raises:
            StateError: the pieces are not the rows that were promised; the error names `name` as the column.
        """
        rows = 0
        for piece in self.pieces():
            rows += len(piece)
            if piece.dtype != self.dtype or piece.shape[1:] != self.shape[1:] or rows > self.shape[0]:
                said = f"{piece.dtype} of shape {piece.shape} up to row {rows:,}"
                raise StateError(
                    f"expected {self.dtype} of shape {self.shape}, but the producer gave {said}", column=name
                )
            if piece.size:
                yield np.ascontiguousarray(piece).reshape(-1).view(np.uint8).data
        if rows != self.shape[0]:
            raise StateError(f"expected {self.shape[0]:,} rows, but the producer gave {rows:,}", column=name)

    def rows(self, first: int, end: int) -> Streamed:
        """Rows [first, end) alone. The others are made too, and dropped."""

        def pieces() -> Iterator[Array]:
            at = 0
            for piece in self.pieces():
                begin, at = at, at + len(piece)
                yield piece[max(first - begin, 0) : max(end - begin, 0)]

        return Streamed((end - first, *self.shape[1:]), self.dtype, pieces)

    def times(self, factor: float) -> Streamed:
        """All values times a factor."""

        def pieces() -> Iterator[Array]:
            for piece in self.pieces():
                yield scaled(piece, factor)

        return Streamed(self.shape, self.dtype, pieces)


def scaled(weights: Array, scale: float) -> Array:
    """Weights of what is stored of them at this scale: the product in float32, as the native core makes it."""
    return weights if scale == 1.0 else weights * np.float32(scale)


def _no_keys() -> Keys:
    return np.empty(0, np.int64)


def _no_words() -> Words:
    return np.empty(0, np.uint32)


@dataclass
class TableContent:
    """Rows of a table, or those that changed since a cut.

    Attributes:
        keys: (n,), by bucket and then by value; of a fixed table row indices.
        columns: weight (n, D) and optimizer state, (n, D) or (n,).
        seen: (n,) the clock at each row's last sight; zeros of a fixed table.
        counts: (n,) gradients that each row has had.
        tombstones: (t,) keys that have lost their row since the cut, in any order.
        waiting, waiting_counts, waiting_seen: (m,) all keys that wait, whatever the cut.
        sketch: the counts of waiting keys where they are in a sketch, uint8.
        cold: the cold row's columns, (1, D) or (1,); empty of a fixed table.
        now, steps: the table's clock and its steps.
        updates: Adam's t.
        scale: a weight, of a row or of the cold row, is this in float32 times what `columns`, `cold` and `streamed`
            have (embtables/rows/host/decay.py); `unscaled` gives the weights themselves. Of a delta it holds for rows
            of the versions before it too, those that are not in it.
        decay: of what was captured since a cut: what rows that are not in it are to be multiplied by since then.
        figures: counts since the table was made, of whoever holds these rows: admitted, expired, ...; none is 0.
            Of a table with a ttl also `rows` and `waiting`, those past their ttl included.
        begins: (1,025,) where each bucket begins among keys, where that is known already.
        streamed: columns and `count` that are made while they are written, and are not in `columns` and `counts`.
    """

    keys: Keys
    columns: dict[str, Values]
    seen: Words
    counts: Words
    tombstones: Keys = field(default_factory=_no_keys)
    waiting: Keys = field(default_factory=_no_keys)
    waiting_counts: Words = field(default_factory=_no_words)
    waiting_seen: Words = field(default_factory=_no_words)
    sketch: npt.NDArray[np.uint8] = field(default_factory=lambda: np.empty(0, np.uint8))
    cold: dict[str, Values] = field(default_factory=dict)
    now: int = 0
    steps: int = 0
    updates: int = 0
    scale: float = 1.0
    decay: float = 1.0
    figures: dict[str, int] = field(default_factory=dict)
    begins: npt.NDArray[np.uint64] | None = None
    streamed: dict[str, Streamed] = field(default_factory=dict)

    def gathered(self) -> TableContent:
        """The same with nothing streamed; takes the memory of all columns."""
        whole = {name: np.concatenate([np.copy(p) for p in column.pieces()]) for name, column in self.streamed.items()}
        counts = whole.pop("count", self.counts)
        return replace(self, columns=self.columns | whole, counts=counts, streamed={})

    def unscaled(self) -> TableContent:
        """The same at scale 1; of a delta, for whoever has the rows of the versions before it at scale 1."""
        return self.at_scale(1.0)

    def at_scale(self, scale: float) -> TableContent:
        """The same weights, to float32, at another scale."""
        if scale == self.scale:
            return self
        factor = self.scale / scale
        columns, cold = (
            {name: scaled(values, factor) if name == WEIGHT else values for name, values in of.items()}
            for of in (self.columns, self.cold)
        )
        streamed = {n: column.times(factor) if n == WEIGHT else column for n, column in self.streamed.items()}
        return replace(self, columns=columns, cold=cold, streamed=streamed, scale=scale)


def restrict(content: TableContent, seed: int, buckets: Buckets) -> TableContent:
    """What of a content lies in buckets [first, end), with the cold row and the clock as they are. Copies no rows."""
    begins = bucket_offsets(content.keys, seed) if content.begins is None else content.begins
    first, end = (int(begins[bucket]) for bucket in buckets)
    rows, waiting = slice(first, end), _within(content.waiting, seed, buckets)
    gone = buckets_of(content.tombstones, seed)
    return replace(
        content,
        keys=content.keys[rows],
        columns={name: values[rows] for name, values in content.columns.items()},
        seen=content.seen[rows],
        counts=content.counts[rows],
        tombstones=content.tombstones[(gone >= buckets[0]) & (gone < buckets[1])],
        waiting=content.waiting[waiting],
        waiting_counts=content.waiting_counts[waiting],
        waiting_seen=content.waiting_seen[waiting],
        sketch=restricted(content.sketch, *buckets) if len(content.sketch) else content.sketch,
        begins=np.clip(begins, first, end) - np.uint64(first),
        streamed={name: column.rows(first, end) for name, column in content.streamed.items()},
    )


def with_keys_of(leader: TableContent, content: TableContent) -> TableContent:
    """A content of a table that had keys of its own, for it to share those of another: what the other has no row for is
    left out, and what waits is what waits there."""
    places = np.flatnonzero(np.isin(content.keys, leader.keys))
    return replace(
        content,
        keys=content.keys[places],
        columns={name: values[places] for name, values in content.columns.items()},
        seen=content.seen[places],
        counts=content.counts[places],
        begins=None,
        waiting=leader.waiting,
        waiting_counts=leader.waiting_counts,
        waiting_seen=leader.waiting_seen,
        sketch=leader.sketch,
        now=leader.now,
        steps=leader.steps,
    )


def _within(keys: Keys, seed: int, buckets: Buckets) -> slice:
    """Where the keys of these buckets lie among keys in the order of buckets."""
    return slice(*np.searchsorted(buckets_of(keys, seed), buckets).tolist())
