"""What the native store gives away of a table and takes back: contents of snapshots and deltas.

A delta is copied at once. A snapshot is captured: its rows are read while its files are written, on any thread, while
training goes on; those that change meanwhile are saved first (embtables/native/rows/row_image.h).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from embtables.errors import StateError
from embtables.native import _core
from embtables.rows.content import Streamed, TableContent
from embtables.rows.exclusive import refuse_forked
from embtables.rows.host.spec import spec_of
from embtables.rows.optimizers import WEIGHT
from embtables.rows.protocol import Capture, KeyState
from embtables.rows.row_format import Values
from embtables.rows.stored_table import StoredTable
from embtables.schema import CollisionlessTable, FixedTable

_PIECE = 1 << 16  # rows
_COLD = np.zeros(1, np.uint32)
RowNumbers = npt.NDArray[np.uint32]


class HostCapture(Capture):
    """All rows of a table as they were when this was made. While it lives, rows that change are saved first."""

    def __init__(self, store: _core.Store, table: int, stored: StoredTable, *, weights_only: bool) -> None:
        self._weights_only = weights_only
        self._beside = _beside(store, table, stored, weights_only=weights_only)
        self._stored = stored
        self._capture = _core.Capture(store, table)

    def close(self) -> None:
        """See Capture."""
        self._capture.close()

    def streamed(self) -> TableContent:
        """See Capture."""
        refuse_forked()
        keys, rows, seen, begins = self._capture.list_rows(torch.get_num_threads())
        numbers = _columns(self._stored, weights_only=self._weights_only)
        columns = {name: self._column(name, number, rows) for name, number in numbers.items()}
        if not self._weights_only:
            columns["count"] = _streamed(rows, (len(rows),), np.uint32, self._capture.read_counts)
        return replace(self._beside, keys=keys, seen=seen, begins=begins, streamed=columns)

    def _column(self, name: str, number: int, rows: RowNumbers) -> Streamed:
        def read(some: RowNumbers, out: Values) -> None:
            self._capture.read(number, some, out.reshape(-1))

        stored = self._stored
        return _streamed(rows, stored.shape(name, len(rows)), stored.format.dtype_of(name), read)


def _streamed(
    rows: RowNumbers, shape: tuple[int, ...], dtype: npt.DTypeLike, read: Callable[[RowNumbers, npt.NDArray[Any]], None]
) -> Streamed:
    """A column that `read` makes of rows, a piece at a time, the next one while the last is written."""

    def pieces() -> Iterator[npt.NDArray[Any]]:
        held = [np.empty((min(len(rows), _PIECE), *shape[1:]), dtype) for _ in range(2)]

        def make(number: int) -> npt.NDArray[Any]:
            some = rows[number * _PIECE : (number + 1) * _PIECE]
            piece = held[number % 2][: len(some)]
            read(some, piece)
            return piece

        count = -(-len(rows) // _PIECE)
        if count <= 1:
            yield make(0)
            return
        with ThreadPoolExecutor(1, thread_name_prefix="capture") as thread:
            coming = thread.submit(make, 0)
            for number in range(1, count):
                piece = coming.result()
                coming = thread.submit(make, number)
                yield piece
            yield coming.result()

    return Streamed(shape, dtype, pieces)


def delta(
    store: _core.Store,
    table: int,
    stored: StoredTable,
    after: int,
    tombstones: npt.NDArray[np.int64],
    *,
    weights_only: bool,
) -> TableContent:
    """Rows that changed after a cut, copied."""
    threads = torch.get_num_threads()
    found = _beside(store, table, stored, weights_only=weights_only)
    found.keys, rows, found.seen, found.begins = store.list_rows(table, after, threads)
    if not weights_only:
        found.counts = np.empty(len(rows), np.uint32)
        store.read_counts(table, rows, found.counts)
    held = _columns(stored, weights_only=weights_only)
    found.columns = {name: _read(store, table, stored, name, rows) for name in held}
    found.tombstones = tombstones
    return found


def _read(store: _core.Store, table: int, stored: StoredTable, name: str, rows: RowNumbers) -> Values:
    out: Values = np.empty(stored.shape(name, len(rows)), stored.format.dtype_of(name))
    store.read(table, stored.optimizer.native_columns[name], rows, torch.get_num_threads(), out.reshape(-1))
    return out


def _columns(stored: StoredTable, *, weights_only: bool) -> dict[str, int]:
    """The columns of a row that are captured, with their numbers in the native store."""
    numbers = stored.optimizer.native_columns
    return {WEIGHT: numbers[WEIGHT]} if weights_only else dict(numbers)


def _beside(store: _core.Store, table: int, stored: StoredTable, *, weights_only: bool) -> TableContent:
    """What a content holds besides rows."""
    none = np.empty(0, np.uint32)
    found = TableContent(np.empty(0, np.int64), {}, none, none, updates=int(store.num_steps(table)))
    found.scale = store.scale(table)
    if isinstance(stored.config, CollisionlessTable):
        threads, figures = torch.get_num_threads(), store.stats(table)
        if not weights_only:
            found.waiting, found.waiting_counts, found.waiting_seen, _ = store.list_waiting(table, threads)
            found.sketch = store.sketch(table)
        held = _columns(stored, weights_only=weights_only)
        found.cold = {name: _read(store, table, stored, name, _COLD) for name in held}
        found.now, found.steps = figures["now"], figures["steps"]
    return found


def apply(store: _core.Store, table: int, stored: StoredTable, content: TableContent) -> None:
    """Takes over a content. Raises StateError if its keys contradict each other.

    Of a table that shares another's keys, what that one took over of the same moment is not taken over again.
    """
    threads, numbers = torch.get_num_threads(), stored.optimizer.native_columns
    keys = np.ascontiguousarray(content.keys)
    rows = np.empty(len(keys), np.uint32)
    store.set_scale(table, content.scale)
    if isinstance(stored.config, FixedTable):
        try:
            store.find(table, keys, threads, rows)
        except IndexError as error:
            raise StateError(str(error), table=stored.config.name) from None
    else:
        # A second removal would take what the other table has let wait since: a tombstone's key may wait again.
        has_keys = stored.keys_of is not None and _is_at(store.stats(table), content)
        if not has_keys:
            store.remove(table, np.ascontiguousarray(content.tombstones))
        try:
            store.place(table, keys, content.seen, threads, rows)
            if not has_keys:
                store.set_waiting(table, content.waiting, content.waiting_counts, content.waiting_seen)
                store.set_sketch(table, content.sketch)
        except ValueError as error:
            raise StateError(str(error), table=stored.config.name) from None
        store.set_clock(table, content.now, content.steps)
        for name, values in content.cold.items():
            store.write(table, numbers[name], _COLD, threads, np.ascontiguousarray(values).reshape(-1))
    for name, values in content.columns.items():
        store.write(table, numbers[name], rows, threads, np.ascontiguousarray(values).reshape(-1))
    store.write_counts(table, rows, content.counts)
    store.set_num_steps(table, content.updates)


def _is_at(figures: Mapping[str, int], content: TableContent) -> bool:
    """Whether a table's keys stand where those of a content do."""
    return (figures["now"], figures["steps"]) == (content.now, content.steps)


def key_state(store: _core.Store, table: int, stored: StoredTable) -> KeyState:
    """What a collisionless table, or a part of a fixed one, knows of its keys."""
    is_fixed = isinstance(stored.config, FixedTable)
    threads, figures = torch.get_num_threads(), store.stats(table)
    keys, _, seen = _sorted(*store.list_rows(table, 0, threads)[:3])
    none = np.empty(0, np.uint32)
    listed = (np.empty(0, np.int64), none, none) if is_fixed else store.list_waiting(table, threads)[:3]
    waiting, counts, waiting_seen = _sorted(*listed)
    return KeyState(
        torch.from_numpy(keys),
        torch.from_numpy(seen.view(np.int32)),
        torch.from_numpy(waiting),
        torch.from_numpy(counts.view(np.int32)),
        torch.from_numpy(waiting_seen.view(np.int32)),
        figures.get("now", 0),
        figures.get("steps", 0),
    )


def bytes_of(stored: StoredTable, rows: int, waiting: int) -> dict[str, int]:
    """Bytes that a table will take in the native core; see `_core.table_bytes`.

    Args:
        rows: keys with a row; of a fixed table, the rows that are held.
        waiting: keys that wait for a row.

    Raises:
        ConfigError: the native core cannot hold the table.
    """
    return _core.table_bytes(spec_of(stored, None if stored.keys_of is None else 0), rows, waiting)


def num_bytes(store: _core.Store, table: int, stored: StoredTable) -> dict[str, int]:
    """See RowStore. `bookkeeping`: when a row changed and how often, 12 bytes; `keys`: the map of keys to rows,
    waiting keys in it, or the index of a part's keys; `counts`: the sketch of waiting keys."""
    config, figures = stored.config, store.stats(table)
    held = "rows" if isinstance(config, FixedTable) else "rows_in_use"
    rows, of = figures.get(held, getattr(config, "num_rows", 0)), stored.format
    found = {n: rows * of.dtype_of(n).itemsize * (of.stride if wide else 1) for n, wide in stored.columns.items()}
    found["bookkeeping"] = rows * figures["row_bytes"] - sum(found.values())
    for use, name in (("keys", "map_bytes"), ("keys", "index_bytes"), ("counts", "sketch_bytes")):
        found |= {use: figures[name]} if figures.get(name) else {}
    return found


def _sorted(
    keys: npt.NDArray[np.int64], values: RowNumbers, seen: RowNumbers
) -> tuple[npt.NDArray[np.int64], RowNumbers, RowNumbers]:
    order = np.argsort(keys)
    return keys[order], values[order], seen[order]
