"""`data.join`: side tables held in memory, looked up by key."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from embtables.arrow.types import field_type, is_text
from embtables.errors import DataError
from embtables.inputs.join_keys import KeyFamily, checked_family, keys_of, places_of
from embtables.inputs.values import one_array
from embtables.pipelines.sources.files.partitions import partition_type
from embtables.pipelines.sources.files.source import LogFile, Source, open_source
from embtables.schema import Join, PartitionType

MAX_SIDE_ROWS = 50_000_000
_OF_FOLDERS: Mapping[KeyFamily, PartitionType] = {"integer": "int64", "time": "timestamp"}


def side_tables(joins: Sequence[Join], source: Source) -> list[SideTable]:
    """The side tables of a log. A key that the log's folders give has the type of the side table's key.

    Raises:
        DataError: see `SideTable`; or a column would be there twice, or the types of a key cannot be compared.
    """
    sides = [SideTable(join) for join in joins]
    for side in sides:
        if side.join.key in source.partition_names and side.key_family in _OF_FOLDERS:
            source.partitions = {side.join.key: _OF_FOLDERS[side.key_family], **source.partitions}
    owners = {name: f"the log ({file.path})" for file in source.files for name in file.column_names}
    for side in sides:
        for name in side.columns:
            if name in owners:
                raise DataError(
                    f"would become the column {name}, which {owners[name]} has already; set prefix on this join, or "
                    "name the columns to take in columns",
                    side=side.join.path,
                    column=name.removeprefix(side.join.prefix),
                )
            owners[name] = f"the side table {side.join.path}"
        for file in source.files:
            side.check_key(source, file)
    return sides


class SideTable:
    """One side table: its key column and the columns it adds, strings dictionary-encoded.

    Dictionaries make a joined string column cheap: a row gets an index, and what is done to strings later (hashing,
    splitting) is done once per distinct value. The key itself, where `columns` lists it under the log's name, is the
    log's column and not added.

    Raises:
        DataError: the key is missing, not unique or of a type that cannot be a key; a column is missing, differs
            between files or cannot be looked up; or the table is too large for memory.
    """

    def __init__(self, join: Join) -> None:
        source = open_source(join.path, "**/*.parquet", quarantine=False)
        rows = sum(f.num_rows for f in source.files)
        if rows > MAX_SIDE_ROWS:
            raise DataError(
                f"has {rows:,} rows; a side table is held in memory, at most {MAX_SIDE_ROWS:,}", side=join.path
            )
        self.join = join
        self._key = join.side_key or join.key
        known = source.column_names
        wanted = list(join.columns) if join.columns is not None else [name for name in known if name != self._key]
        if join.prefix + self._key == join.key:
            wanted = [name for name in wanted if name != self._key]
        for name in (self._key, *wanted):
            if name not in known:
                raise DataError(f"is missing; the side table has: {', '.join(known)}", side=join.path, column=name)
        table = source.read_all((self._key, *wanted), ids=(self._key,))
        self._keys = keys_of(table.column(self._key), side=join.path, column=self._key)
        self._check_unique()
        self.columns = tuple(join.prefix + name for name in wanted)
        arrays = [self._taken(name, table.column(name)) for name in wanted]
        self._table = pa.table(arrays, names=list(self.columns))

    def _check_unique(self) -> None:
        counts = pc.value_counts(self._keys.values.drop_null())
        twice = counts.filter(pc.greater(counts.field("counts"), 1))
        if len(twice):
            example = self._keys.example(pc.index(self._keys.values, twice[0]["values"]).as_py())
            raise DataError(
                f"holds {example} {twice[0]['counts'].as_py()} times ({len(twice):,} keys are not unique); "
                "each key must have exactly one row",
                side=self.join.path,
                column=self._key,
            )

    def _taken(self, name: str, column: pa.ChunkedArray) -> pa.Array:
        array = _encoded(column)
        try:
            array.take(pa.array([], pa.int64()))  # whether Arrow can, before a row is read
        except pa.ArrowNotImplementedError:
            raise DataError(
                f"holds {array.type}, which cannot be looked up; name the columns to take with columns",
                side=self.join.path,
                column=name,
            ) from None
        return array

    @property
    def key_family(self) -> KeyFamily:
        """What its key is compared as."""
        return self._keys.family

    def rows(self, columns: Collection[str]) -> pa.Table:
        """Its rows that have a key: the key, under the log's name, and those of `self.columns` that are named."""
        wanted = [name for name in self.columns if name in columns]
        table = self._table.select(wanted).add_column(0, self.join.key, self._keys.shown)
        keys = self._keys.values
        return table.filter(keys.is_valid()) if keys.null_count else table

    def check_key(self, source: Source, file: LogFile) -> None:
        """Raises DataError if a file's key column is of a type that cannot be compared with the side table's."""
        name = self.join.key
        if name in file.partition:
            self._check_family(partition_type(source.partitions, name), file=file.path, column=name)
            return
        kind = field_type(file.schema, name)
        if kind is not None:
            self._check_family(kind, file=file.path, column=name)

    def _check_family(self, kind: pa.DataType, **path: object) -> None:
        family = checked_family(kind, **path)
        if "null" not in (family, self._keys.family) and family != self._keys.family:
            raise DataError(
                f"holds {kind}, but the key {self._key} of the side table {self.join.path} holds {self._keys.kind}",
                **path,
            )

    def add_to(self, table: pa.Table) -> pa.Table:
        """`table` with the side table's columns. Raises DataError for keys that are missing, unless they may be."""
        join = self.join
        path = {"side": join.path, "column": join.key}
        keys = keys_of(table.column(join.key), **path)
        self._check_family(keys.kind, **path)
        places = places_of(keys, self._keys)
        if join.on_missing == "error" and places.null_count:
            absent = places.is_null()
            example = keys.example(pc.index(absent, True).as_py())
            missing = len(pc.unique(keys.values.filter(absent)))
            raise DataError(
                f"{missing:,} keys of the log are missing, for example {example}; "
                "complete the side table, or set on_missing: null",
                **path,
            )
        taken = self._table.take(places)
        for name in self.columns:
            table = table.append_column(name, taken.column(name))
        return table


def _encoded(column: pa.ChunkedArray) -> pa.Array:
    if not is_text(column.type):
        return one_array(column)
    if pa.types.is_dictionary(column.type):
        return one_array(column.unify_dictionaries())
    # Large, because the values of all files together may be more than 2 GiB.
    bytes_too = pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type)
    return one_array(column.cast(pa.large_binary() if bytes_too else pa.large_string()).dictionary_encode())
