"""`KeyIndex`: where each of k keys is among n unique ones, in O(k log n), by the rules of training's joins.

    key columns --embtables.inputs.join_keys--> int64 or bytes --> a 64-bit word for each key
    words of the n keys, sorted --searchsorted--> a place --> equal? --> a row

The word of a single integer or time is the number itself, which is exact. A text's is its pinned hash, that of several
columns a mix of theirs: there, the values are compared, and keys of the same word stand beside each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from embtables.errors import StateError
from embtables.ids.mix import seeded_mix
from embtables.ids.strings import hash_strings
from embtables.inputs.join_keys import KeyFamily, Keys, keys_of

Int64s = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class KeyColumn:
    """A column of k keys, and the word of each; of nulls any."""

    keys: Keys
    words: Int64s

    @classmethod
    def of(cls, name: str, column: pa.Array | pa.ChunkedArray) -> KeyColumn:
        """The keys of a column. Raises DataError, with its name, if its type or a value cannot be a key."""
        chunked = column if isinstance(column, pa.ChunkedArray) else pa.chunked_array([column])
        keys = keys_of(chunked, column=name)
        if keys.family == "text":
            return cls(keys, hash_strings(keys.values))
        values = keys.values.fill_null(0) if keys.values.null_count else keys.values
        return cls(keys, values.to_numpy())

    def __len__(self) -> int:
        return len(self.words)

    def repeated(self, k: int) -> KeyColumn:
        """Its only key k times."""
        keys = self.keys
        values = keys.values.take(pa.array(np.zeros(k, np.int64)))
        return KeyColumn(Keys(keys.family, values, keys.shown), np.repeat(self.words, k))


class KeyIndex:
    """n unique keys, none of them null, and where each is.

    Memory: 12 bytes for each key (16 beyond 2^31 keys). Besides, where values are compared, 8 bytes for each number of
    a key of several columns; texts stay where they are, unless their column is dictionary-encoded.

    Args:
        columns: the key columns (n,).

    Raises:
        StateError: a key is null, or there twice.

    Example:
        >>> import pyarrow as pa
        >>> index = KeyIndex([KeyColumn.of("item", pa.array(["85123A", "71053"]))])
        >>> index.find([KeyColumn.of("item", pa.array(["71053", "no such item"]))]).tolist()
        [1, 2]
    """

    def __init__(self, columns: Sequence[KeyColumn]) -> None:
        keys = [column.keys for column in columns]
        self.families: tuple[KeyFamily, ...] = tuple(column.family for column in keys)
        self._num_keys = len(columns[0])
        for column in keys:
            if column.values.null_count:
                raise StateError(f"{column.values.null_count:,} keys are null")
        words = _words(columns)
        order = np.argsort(words, kind="stable")
        self._words = words[order]
        self._rows = order.astype(np.int32) if self._num_keys < 2**31 else order
        # A number stands for itself: its word is enough.
        self._values: list[Any] | None = None
        if not _is_exact(self.families):
            self._values = [column.keys.values if column.keys.family == "text" else column.words for column in columns]
        self._longest_run = self._checked_runs(keys)

    def _checked_runs(self, keys: Sequence[Keys]) -> int:
        """The most keys of one word; 1 nearly always."""
        n = self._num_keys
        starts = np.flatnonzero(np.r_[True, self._words[1:] != self._words[:-1]][:n])
        lengths = np.diff(starts, append=n)
        for start, length in zip(starts[lengths > 1], lengths[lengths > 1], strict=True):
            seen = set()
            for row in self._rows[start : start + length].tolist():
                key = tuple(column.values[row].as_py() for column in keys)
                if key in seen:
                    raise StateError(f"the key {', '.join(column.example(row) for column in keys)} is there twice")
                seen.add(key)
        return int(lengths.max(initial=1))

    def find(self, columns: Sequence[KeyColumn]) -> Int64s:
        """(k,) the row of each key; n for one that is not there, or has a null.

        Args:
            columns: the key columns (k,), of the families that the index has, or nulls.
        """
        n, k = self._num_keys, len(columns[0])
        found = np.full(k, n, np.int64)
        if not n or not k or "null" in (column.keys.family for column in columns):
            return found
        words = _words(columns)
        first = np.searchsorted(self._words, words)
        for step in range(self._longest_run):
            places = np.minimum(first + step, n - 1)
            hits = np.flatnonzero(self._words[places] == words)
            rows = self._rows[places[hits]].astype(np.int64)
            if self._values is not None and len(hits):
                same = self._equal(columns, hits, rows)
                hits, rows = hits[same], rows[same]
            found[hits] = rows
        for column in columns:
            if column.keys.values.null_count:
                found[column.keys.values.is_null().to_numpy(zero_copy_only=False)] = n
        return found

    def _equal(self, columns: Sequence[KeyColumn], hits: Int64s, rows: Int64s) -> Mask:
        """(h,) whether the keys at `hits` are those of these rows; of nulls anything."""
        assert self._values is not None
        equal = np.ones(len(rows), np.bool_)
        for column, values in zip(columns, self._values, strict=True):
            if column.keys.family != "text":
                equal &= values[rows] == column.words[hits]
                continue
            wanted = column.keys.values
            if len(hits) < len(column):
                wanted = wanted.take(pa.array(hits))
            here = values.take(pa.array(rows))
            if not here.equals(wanted):  # as a whole, which is the usual case and the fastest
                equal &= pc.fill_null(pc.equal(here, wanted), False).to_numpy(zero_copy_only=False)
        return equal


def _is_exact(families: Sequence[KeyFamily]) -> bool:
    return len(families) == 1 and families[0] != "text"


def _words(columns: Sequence[KeyColumn]) -> Int64s:
    """(n,) a 64-bit word for each key; of nulls any."""
    words = columns[0].words
    for number, column in enumerate(columns[1:]):
        words = seeded_mix(words, number).view(np.int64) ^ column.words
    return words
