"""`data.join`: side tables held in memory, looked up by key."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from embtables.errors import DataError
from embtables.inputs.arrow_types import is_text
from embtables.pipelines.sources.files.source import open_source
from embtables.schema import Join

MAX_SIDE_ROWS = 50_000_000


class SideTable:
    """One side table: its key column and the columns it adds, strings dictionary-encoded.

    Dictionaries make a joined string column cheap: a row gets an index, and what is done to strings later (hashing,
    splitting) is done once per distinct value.

    Raises:
        DataError: the key is missing or not unique, a column is missing, or the table is too large for memory.
    """

    def __init__(self, join: Join) -> None:
        source = open_source(join.path, "**/*.parquet", quarantine=False)
        rows = sum(f.num_rows for f in source.files)
        if rows > MAX_SIDE_ROWS:
            raise DataError(
                f"has {rows:,} rows; a side table is held in memory, at most {MAX_SIDE_ROWS:,}", side=join.path
            )
        self._join = join
        key = join.side_key or join.key
        known = source.files[0].column_names
        wanted = list(join.columns) if join.columns is not None else [name for name in known if name != key]
        for name in (key, *wanted):
            if name not in known:
                raise DataError(f"is missing; the side table has: {', '.join(known)}", side=join.path, column=name)
        names = list(dict.fromkeys((key, *wanted)))
        table = source.read_all(names, ids=(key,))
        self._keys = _comparable(table.column(key)).combine_chunks()
        self._check_unique(key)
        self.columns = tuple(join.prefix + name for name in wanted)
        self._table = pa.table([_encoded(table.column(name)) for name in wanted], names=list(self.columns))

    def _check_unique(self, key: str) -> None:
        counts = pc.value_counts(self._keys)
        twice = counts.filter(pc.greater(counts.field("counts"), 1))
        if len(twice):
            example = twice[0]["values"].as_py()
            raise DataError(
                f"holds {example!r} {twice[0]['counts'].as_py()} times ({len(twice):,} keys are not unique); "
                "each key must have exactly one row",
                side=self._join.path,
                column=key,
            )

    def add_to(self, table: pa.Table) -> pa.Table:
        """`table` with the side table's columns. Raises DataError for keys that are missing, unless they may be."""
        join = self._join
        keys = _comparable(table.column(join.key))
        if keys.type != self._keys.type:
            raise DataError(
                f"holds {keys.type}, the side table's key {self._keys.type}", side=join.path, column=join.key
            )
        places = pc.index_in(keys, value_set=self._keys)
        if join.on_missing == "error" and places.null_count:
            missing = pc.unique(keys.filter(places.is_null()))
            raise DataError(
                f"{len(missing):,} keys of the log are missing, for example {missing[0].as_py()!r}; "
                "complete the side table, or set on_missing: null",
                side=join.path,
                column=join.key,
            )
        taken = self._table.take(places)
        for name in self.columns:
            table = table.append_column(name, taken.column(name))
        return table


def _comparable(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Keys as int64 or large_string, whatever their width or encoding."""
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if pa.types.is_integer(kind):
        return column.cast(pa.int64())
    return column.cast(kind).cast(pa.large_string()) if is_text(kind) else column


def _encoded(column: pa.ChunkedArray) -> pa.Array:
    encode = is_text(column.type) and not pa.types.is_dictionary(column.type)
    array = column.dictionary_encode() if encode else column
    return array.combine_chunks() if array.num_chunks != 1 else array.chunk(0)
