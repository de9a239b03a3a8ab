"""`KeyTable`: the columns of a table that running features read, as 64-bit ids and numbers, each made once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from embtables.arrow.types import take_column
from embtables.errors import DataError
from embtables.ids.cross import cross_ids
from embtables.inputs.columns import plain_ids
from embtables.inputs.values import as_float64, one_array

Int64s = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


class KeyTable:
    """Columns of n events, or of n questions.

    Args:
        table: (n,) rows.
    """

    def __init__(self, table: pa.Table | pa.RecordBatch) -> None:
        self._table = table
        self._ids: dict[str, tuple[Int64s, Mask | None]] = {}

    def ids(self, name: str) -> tuple[Int64s, Mask | None]:
        """(n,) int64 ids of a column, as the features stage makes them, and which rows have one; None: all have.

        Raises:
            BadRowsError: values that cannot be ids. DataError: there is no such column, or its type cannot be ids.
        """
        if name not in self._ids:
            array = self._array(name)
            known = array.is_valid().to_numpy(zero_copy_only=False) if array.null_count else None
            self._ids[name] = np.ascontiguousarray(plain_ids(name, array)), known
        return self._ids[name]

    def keys(self, names: Sequence[str]) -> tuple[Int64s, Mask | None]:
        """(n,) int64 keys of one column, or of several crossed, and which rows have all of it. Raises as `ids`."""
        parts = [self.ids(name) for name in names]
        masks = [mask for _, mask in parts if mask is not None]
        known = np.logical_and.reduce(masks) if masks else None
        return (parts[0][0] if len(parts) == 1 else cross_ids(*(ids for ids, _ in parts))), known

    def numbers(self, name: str) -> Int64s:
        """(n,) the bits of float64 numbers, NaN where there is none.

        Raises:
            BadRowsError: NaN or infinity. DataError: there is no such column, or it holds no numbers.
        """
        array = self._array(name)
        found = as_float64(name, array, fill=0.0)
        if array.null_count:
            found = np.where(array.is_null().to_numpy(zero_copy_only=False), np.nan, found)
        return np.ascontiguousarray(found).view(np.int64)

    def _array(self, name: str) -> pa.Array:
        column = take_column(self._table, name)
        if column is None:
            raise DataError(f"is missing; there are: {', '.join(self._table.schema.names)}", column=name)
        return one_array(column)
