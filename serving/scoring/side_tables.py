"""`SideTables`: the columns that a request does not give, from a version's side tables, as training joined them.

    columns of the request --keys--> `PublishedSideTable.positions` --rows--> columns under the names the model reads

Tables are joined in the configuration's order, so that a column of one may be the key of a later one. What the request
gives is never replaced: a column that it gives is not looked up, and of one that it gives in some rows only (`gaps`)
the other rows are filled. A table whose keys the request does not give is left out, and with it its columns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from embtables.arrow.one_type import cast, one_type
from embtables.arrow.types import plain
from embtables.errors import DataError
from embtables.inputs.join_keys import key_family
from embtables.inputs.values import one_array
from embtables.serving.refusals import Refusal
from embtables.serving.versions.side_tables.key_index import KeyColumn
from embtables.serving.versions.side_tables.side_table import PublishedSideTable

Int64s = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
Place = Callable[[str, "int | None"], str]
"""The place in the request of a column, in one row or (None) as such: `candidates.3.stock_code`."""


def _by_column(column: str, row: int | None) -> str:
    return column if row is None else f"{row}.{column}"


@dataclass(frozen=True, slots=True)
class Joined:
    """What side tables give to k rows.

    Attributes:
        columns: (k,) by name; those with gaps are filled.
        missing: by side table the number of rows whose key it lacks.
    """

    columns: dict[str, pa.Array] = field(default_factory=dict)
    missing: dict[str, int] = field(default_factory=dict)


class SideTables:
    """All side tables of a version, in the order in which they are joined. Cheap to make: the tables are shared.

    Attributes:
        columns: what they can give.
        keys: the columns that they are looked up by.
        times: those of both that hold times.

    Example:
        >>> import pyarrow as pa
        >>> from embtables.models.version_content import SideTableContent
        >>> of = SideTableContent(name="items.parquet", keys=("item",), columns=("price",), file="side.0.arrow", rows=2,
        ...     missing="null")
        >>> items = PublishedSideTable(of, "", pa.table({"item": ["pen", "cup"], "price": [1.0, 4.0]}))
        >>> joined = SideTables([items]).joined({"item": pa.array(["cup", "hat", "pen"])}, 3)
        >>> joined.columns["price"].to_pylist(), joined.missing
        ([4.0, None, 1.0], {'items.parquet': 1})
    """

    def __init__(self, tables: Iterable[PublishedSideTable]) -> None:
        self._tables = tuple(tables)
        self._table_of = {name: table for table in self._tables for name in table.of.columns}
        self.columns = frozenset(self._table_of)
        self.keys = frozenset(name for table in self._tables for name in table.of.keys)
        held = [column for table in self._tables for column in table.table.schema]
        self.times = frozenset(column.name for column in held if key_family(column.type) == "time")

    def keys_of(self, column: str) -> tuple[str, ...]:
        """The columns by which one of `columns` is looked up: what a request without it has to give instead."""
        return self._table_of[column].of.keys

    def joined(
        self,
        given: Mapping[str, pa.Array],
        k: int,
        *,
        gaps: Mapping[str, Mask] | None = None,
        place: Place = _by_column,
    ) -> Joined:
        """The columns that the request does not give, for its k rows.

        Args:
            given: the request's columns, (k,) or (1,) for all rows.
            gaps: by column, (k,) the rows in which the request does not give it, whatever `given` has there.
            place: says where a column is in the request, for refusals.

        Raises:
            Refusal: 422, a key is of a type that cannot be compared, or is missing where the table has
                `missing: error`; names table, key and value, with the place of the first such row. Or a column has
                gaps, and values of another type than the table's.
        """
        gaps = {} if gaps is None else gaps
        joined, known = Joined(), dict(given)
        keys = _Keys(known)
        for table in self._tables:
            found = _find(table, known, keys, k, gaps, place)
            if found is None:
                continue
            if found.missing:
                joined.missing[table.of.name] = found.missing
            taken = table.take(found.positions)
            for name in found.columns:
                column = taken[name]
                if name in given:
                    column = _filled(name, given[name], column, gaps[name], k, place)
                joined.columns[name] = known[name] = column
                keys.pop(name, None)
        return joined


@dataclass(frozen=True, slots=True)
class _Found:
    """Where k rows are in a table, (k,); the columns that they need of it; how many of them have a key it lacks."""

    positions: Int64s
    columns: tuple[str, ...]
    missing: int


class _Keys(dict[str, KeyColumn]):
    """Key columns of a request, made once for all tables that they are looked up in."""

    def __init__(self, columns: Mapping[str, pa.Array]) -> None:
        self._columns = columns

    def __missing__(self, name: str) -> KeyColumn:
        self[name] = KeyColumn.of(name, self._columns[name])
        return self[name]


def _find(
    table: PublishedSideTable,
    given: Mapping[str, pa.Array],
    keys: _Keys,
    k: int,
    gaps: Mapping[str, Mask],
    place: Place,
) -> _Found | None:
    """Where the rows are; None if nothing is needed of the table, or its keys are not given."""
    columns = tuple(name for name in table.of.columns if name not in given or name in gaps)
    if not columns or not all(name in given for name in table.of.keys):
        return None
    try:
        positions = table.positions([keys[name] for name in table.of.keys], k)
    except DataError as error:
        column = str(error.path.get("column", table.of.keys[0]))
        raise Refusal(422, error.message, place(column, None)) from None
    absent = positions == table.num_rows
    if all(name in given for name in columns):  # and in some rows only
        absent &= np.logical_or.reduce([gaps[name] for name in columns])
    missing = int(np.count_nonzero(absent))
    if missing and table.of.missing == "error":
        raise _missing_key(table, given, int(absent.argmax()), columns, place)
    return _Found(positions, columns, missing)


def _missing_key(
    table: PublishedSideTable, given: Mapping[str, pa.Array], row: int, columns: tuple[str, ...], place: Place
) -> Refusal:
    shown = []
    for name in table.of.keys:
        column = given[name]
        shown.append(f"{name} {_shown(column[row if len(column) > 1 else 0])}")
    return Refusal(
        422,
        f"the side table {table.of.name} lacks {', '.join(shown)}; send {', '.join(columns)} with the request, or "
        "publish a side table that has it",
        place(table.of.keys[-1], row),
    )


def _shown(value: pa.Scalar) -> str:
    try:
        text = repr(value.as_py())
    except (ValueError, OverflowError):  # a time that Python has no date for
        text = str(value.cast(pa.int64()))
    return text if len(text) <= 100 else f"{text[:100]}..."


def _filled(name: str, given: pa.Array, taken: pa.Array, gaps: Mask, k: int, place: Place) -> pa.Array:
    """What the request gives, and in the rows of gaps what the table gives, in the type that holds both."""
    if len(given) != k:
        given = given.take(pa.array(np.zeros(k, np.int64)))
    parts = [plain(part.dictionary_decode() if pa.types.is_dictionary(part.type) else part) for part in (given, taken)]
    try:
        kind = one_type(name, [(part.type, "") for part in parts], ids=False)
        both = [cast(pa.chunked_array([part]), kind, name=name, file="") for part in parts]
    except DataError:
        raise Refusal(422, f"holds {given.type}; a {taken.type} is needed", place(name, None)) from None
    places = np.arange(k) + np.where(gaps, k, 0)
    return one_array(pa.chunked_array([*both[0].chunks, *both[1].chunks])).take(pa.array(places))
