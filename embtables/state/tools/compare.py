"""Two versions compared: rows by key, bucket by bucket; dense tensors; what else they hold."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from embtables.state.format.version import Tensors
from embtables.state.read import merge
from embtables.state.read.merge import MergedTable

LARGEST = 10
_SHOWN = 60  # characters of a value


@dataclass
class TableDifference:
    """One table of two versions, A and B.

    Attributes:
        rows: of A and of B.
        only: keys with a row in A alone, in B alone.
        same: rows of both with the same weight and optimizer state, bit for bit, as far as both have them.
        changed: the others of both.
        differs: of the rows of both, how many have another value in a column; by the columns that can be compared.
        largest: the keys whose weight changed most, with the L2 norm of the change, which is nan or infinite where
            a weight is; the greatest first, at most ten.
        layout: how the tables themselves differ, in words.
    """

    rows: tuple[int, int]
    only: tuple[int, int] = (0, 0)
    same: int = 0
    changed: int = 0
    differs: dict[str, int] = field(default_factory=dict)
    largest: list[tuple[int, float]] = field(default_factory=list)
    layout: list[str] = field(default_factory=list)


def compare_rows(a: MergedTable, b: MergedTable) -> TableDifference | None:
    """Compares all rows of two tables; None if the tables have different seeds.

    Raises:
        StateError: the disk fails.
    """
    found = TableDifference((a.rows, b.rows), layout=_layout(a, b))
    columns = [n for n in a.columns if n != "key" and n in b.columns and _width(a, n) == _width(b, n)]
    found.differs = dict.fromkeys(columns, 0)
    both = 0
    for first, end in merge.groups(np.diff(a.begins) + np.diff(b.begins), merge.KEYS_AT_A_TIME):
        keys, rows_a, rows_b = _in_both(a, b, first, end)
        if (np.diff(rows_b) <= 0).any():
            # Both follow the order of buckets and keys. Where they differ in it, a key's bucket differs: another seed.
            return None
        both += len(keys)
        changed = np.zeros(len(keys), np.bool_)
        for name in columns:
            differs = _compare_column(a, b, name, (keys, rows_a, rows_b), found)
            if name not in ("seen", "count"):
                changed |= differs
        found.changed += int(changed.sum())
    found.same = both - found.changed
    found.only = a.rows - both, b.rows - both
    return found


def _layout(a: MergedTable, b: MergedTable) -> list[str]:
    dims = a.format.dim, b.format.dim
    found = [f"dim {dims[0]} in A, {dims[1]} in B"] if dims[0] != dims[1] else []
    if a.row_columns != b.row_columns:
        found.append(f"optimizer state: {_state(a.row_columns)} in A, {_state(b.row_columns)} in B")
    return found


def _state(columns: dict[str, bool]) -> str:
    found = (f"{name} by {'weight' if wide else 'row'}" for name, wide in columns.items() if name != "weight")
    return ", ".join(found) or "none"


def _width(table: MergedTable, name: str) -> int:
    return table.format.dim if table.row_columns.get(name) else 1


def _in_both(a: MergedTable, b: MergedTable, first: int, end: int) -> tuple[npt.NDArray[np.int64], ...]:
    """Keys of the buckets [first, end) that both have, and their rows in each, in the order of A."""
    starts = int(a.begins[first]), int(b.begins[first])
    theirs = a.read("key", starts[0], int(a.begins[end])), b.read("key", starts[1], int(b.begins[end]))
    keys, in_a, in_b = np.intersect1d(*theirs, assume_unique=True, return_indices=True)
    order = np.argsort(in_a)
    return keys[order], starts[0] + in_a[order], starts[1] + in_b[order]


def _compare_column(
    a: MergedTable, b: MergedTable, name: str, both: tuple[npt.NDArray[np.int64], ...], found: TableDifference
) -> npt.NDArray[np.bool_]:
    """Which of the rows that both have differ in a column, (n,); noted in `found`."""
    keys, rows_a, rows_b = both
    differs = np.zeros(len(keys), np.bool_)
    step = a.rows_at_a_time(name)
    for start in range(0, len(keys), step):
        part = slice(start, start + step)
        values = a.take(name, rows_a[part]), b.take(name, rows_b[part])
        bits = [v.view(np.uint32).reshape(len(v), -1) for v in values]
        differs[part] = (bits[0] != bits[1]).any(axis=1)
        if name == "weight":
            with np.errstate(invalid="ignore", over="ignore"):
                norms = np.linalg.norm(values[1].astype(np.float64) - values[0], axis=1)
            _note_largest(found, keys[part][differs[part]], norms[differs[part]])
    found.differs[name] += int(differs.sum())
    return differs


def _note_largest(found: TableDifference, keys: npt.NDArray[np.int64], norms: npt.NDArray[np.float64]) -> None:
    rank = np.where(np.isnan(norms), np.inf, norms)
    chosen = np.lexsort((keys, -rank))[:LARGEST]
    all_of_them = found.largest + list(zip(keys[chosen].tolist(), norms[chosen].tolist(), strict=True))
    found.largest = sorted(all_of_them, key=lambda c: (-c[1] if c[1] == c[1] else -np.inf, c[0]))[:LARGEST]


def compare_tensors(a: Tensors, b: Tensors) -> dict[str, str | float | None]:
    """What differs between two sets of tensors.

    Returns:
        By name, of those that differ: the greatest absolute difference of their values, None if that is no number;
        or in words that one has no such tensor, or another shape or type.
    """
    found: dict[str, str | float | None] = {}
    for name in sorted(a.keys() | b.keys()):
        if name not in a or name not in b:
            found[name] = "only in A" if name in a else "only in B"
        elif (a[name].shape, a[name].dtype) != (b[name].shape, b[name].dtype):
            here, there = (f"{t[name].dtype} {list(t[name].shape)}" for t in (a, b))
            found[name] = f"{here} in A, {there} in B"
        elif a[name].tobytes() != b[name].tobytes():
            with np.errstate(invalid="ignore"):
                largest = float(np.max(np.abs(a[name].astype(np.float64) - b[name].astype(np.float64))))
            found[name] = largest if np.isfinite(largest) else None
    return found


def compare_content(a: Mapping[str, Any], b: Mapping[str, Any]) -> Iterator[str]:
    """Paths at which two JSON objects differ, with both values: `schema.tables.0.dim: 16 in A, 8 in B`."""
    for key in sorted(a.keys() | b.keys()):
        yield from _differences(a.get(key), b.get(key), key)


def _differences(a: Any, b: Any, path: str) -> Iterator[str]:
    if a == b:
        return
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        for key in sorted(a.keys() | b.keys()):
            yield from _differences(a.get(key), b.get(key), f"{path}.{key}")
    elif isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        for number, (here, there) in enumerate(zip(a, b, strict=True)):
            yield from _differences(here, there, f"{path}.{number}")
    else:
        yield f"{path}: {_short(a)} in A, {_short(b)} in B"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."
