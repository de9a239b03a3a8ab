"""`PublishedSideTable`: what training joined to its log, or prepared from it, looked up by key for a request."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from embtables.errors import DataError, StateError
from embtables.inputs.join_keys import KeyFamily
from embtables.inputs.values import one_array
from embtables.models.version_content import SideTableContent
from embtables.serving.versions.side_tables.key_index import KeyColumn, KeyIndex

Int64s = npt.NDArray[np.int64]
_SHOWN: Mapping[KeyFamily, str] = {"integer": "integers", "text": "strings", "time": "times", "null": "nulls"}


class PublishedSideTable:
    """A side table that a version names, with an index over its keys. It does not change: threads share it.

    Row numbers are 0..n-1; n stands for a key that it lacks.

    Attributes:
        of: its keys, columns and what a missing key gives, as the version's content says.
        checksum: of its file in the version; tables with the same checksum are equal.
        table: `of.keys` and `of.columns`, n rows.

    Raises:
        StateError: a column is not there, the number of rows is another, or keys are null, not unique, or of a type
            that cannot be a key.

    Example:
        >>> import pyarrow as pa
        >>> from embtables.models.version_content import SideTableContent
        >>> of = SideTableContent(name="items.parquet", keys=("item",), columns=("price",), file="side.0.arrow", rows=2,
        ...     missing="defaults", defaults={"price": 0.5})
        >>> items = PublishedSideTable(of, "", pa.table({"item": ["pen", "cup"], "price": [1.0, 4.0]}))
        >>> rows = items.positions([pa.array(["cup", "hat"])], 2)
        >>> rows.tolist(), items.take(rows)["price"].to_pylist()
        ([1, 2], [4.0, 0.5])
    """

    def __init__(self, of: SideTableContent, checksum: str, table: pa.Table) -> None:
        self.of = of
        self.checksum = checksum
        for name in (*of.keys, *of.columns):
            if name not in table.column_names:
                raise self._damaged(f"lacks the column {name}")
        if table.num_rows != of.rows:
            raise self._damaged(f"holds {table.num_rows:,} rows where the version says {of.rows:,}")
        try:
            keys = [KeyColumn.of(name, table.column(name)) for name in of.keys]
            self._index = KeyIndex(keys)
        except (DataError, StateError) as error:
            raise self._damaged(str(error)) from None
        # Row n is what a missing key gives, so that rows are taken without a look at which keys are missing.
        self._rows = pa.record_batch({name: self._with_default(name, table.column(name)) for name in of.columns})
        columns = dict(zip(of.columns, self._rows.slice(0, of.rows).columns, strict=True))
        self.table = pa.table({name: table.column(name) for name in of.keys} | columns)

    def _damaged(self, what: str) -> StateError:
        return StateError(f"{what}; publish the version again", side=self.of.name, file=self.of.file)

    def _with_default(self, name: str, stored: pa.ChunkedArray) -> pa.Array:
        """(n + 1,) a column, and what it gives for a key that is not there; strings without a dictionary: what is done
        to strings later would be done to each value of the dictionary, also to those that no row of a request has.
        """
        column = one_array(stored)
        if pa.types.is_dictionary(column.type):
            column = column.dictionary_decode()
        value, kind = self.of.defaults.get(name), column.type
        try:
            return pa.concat_arrays([column, pa.nulls(1, kind) if value is None else pa.array([value], kind)])
        except (pa.ArrowException, TypeError, ValueError) as error:
            raise self._damaged(f"has the default {value!r} for the column {name}, which holds {kind}") from error

    @property
    def num_rows(self) -> int:
        """n: the number that stands for a key that it lacks."""
        return self.of.rows

    def positions(self, columns: Sequence[pa.Array | KeyColumn], k: int) -> Int64s:
        """(k,) the row of each key; n for one that it lacks, and for a null.

        Args:
            columns: of each of `of.keys` (k,), or (1,) for all of them; as a KeyColumn, if it is used again.

        Raises:
            DataError: a column's type cannot be compared with the key's; names the column.
        """
        keys = [self._comparable(place, column) for place, column in enumerate(columns)]
        if len(keys) == 1:
            found = self._index.find(keys)
            return found if len(found) == k else np.repeat(found, k)
        return self._index.find([column if len(column) == k else column.repeated(k) for column in keys])

    def _comparable(self, place: int, column: pa.Array | KeyColumn) -> KeyColumn:
        name, family = self.of.keys[place], self._index.families[place]
        keys = column if isinstance(column, KeyColumn) else KeyColumn.of(name, column)
        if "null" not in (keys.keys.family, family) and keys.keys.family != family:
            held, wanted = _SHOWN[keys.keys.family], _SHOWN[family]
            raise DataError(
                f"holds {held}, but the side table {self.of.name} is looked up by {wanted}; send {wanted}", column=name
            )
        return keys

    def take(self, positions: Int64s) -> dict[str, pa.Array]:
        """(k,) of each column the values at these rows; at n what a missing key gives: nulls or defaults."""
        return dict(zip(self.of.columns, self._rows.take(pa.array(positions)).columns, strict=True))
