"""Tables in memory as users have them (pandas, polars, Arrow, a dictionary of arrays) as one Arrow table.

Nothing is imported for this: a library whose frame is given is loaded already.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping
from typing import Any, TypeAlias

import pyarrow as pa

from embtables.errors import DataError

Frame: TypeAlias = Any
"""A pandas or polars DataFrame, an Arrow table, record batch, batch reader or dataset, a mapping of columns, or
anything with `__arrow_c_stream__`. (None of the libraries has types that could be named without importing it.)"""


def as_table(data: Frame, name: str = "data") -> pa.Table:
    """The rows as an Arrow table; columns are not copied where Arrow can hold them as they are.

    Of pandas the index is left out, and NaN in a float column is a null, as in a parquet file that pandas writes. A
    dataset is read into memory.

    Args:
        name: what the data is called in errors.

    Raises:
        DataError: it is no table, or a column has no Arrow type; names the column if that is known.
    """
    try:
        table = arrow_table(data)
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
        reason = " ".join("; ".join(str(part) for part in error.args).split())
        raise DataError(f"cannot be taken as a table: {reason}", table=name) from error
    if table is None:
        known = "a pandas or polars DataFrame, an Arrow table or dataset, or a dictionary of columns"
        raise DataError(f"is {type(data).__name__}, which is no table; give {known}", table=name)
    twice = [column for column, count in Counter(table.column_names).items() if count > 1]
    if twice:
        raise DataError("two columns have this name", table=name, column=twice[0])
    return table.replace_schema_metadata(None)


def is_pandas(data: object) -> bool:
    """Whether it is a pandas DataFrame."""
    pandas = sys.modules.get("pandas")
    return pandas is not None and isinstance(data, pandas.DataFrame)


def arrow_table(data: Frame) -> pa.Table | None:
    """The same without a check; None: it is no table. Raises what pyarrow raises."""
    if isinstance(data, pa.Table):
        return data
    if isinstance(data, pa.RecordBatch):
        return pa.Table.from_batches([data])
    if isinstance(data, pa.RecordBatchReader):
        return data.read_all()
    if is_pandas(data):
        named = all(isinstance(column, str) for column in data.columns)
        if not named:
            raise ValueError(f"names of columns must be strings, received {list(data.columns)[:5]}")
        return pa.Table.from_pandas(data, preserve_index=False)
    if isinstance(data, Mapping):
        return pa.table(dict(data))
    for method in ("to_arrow", "to_table"):  # polars; Arrow's datasets
        if hasattr(data, method):
            found = getattr(data, method)()
            return found if isinstance(found, pa.Table) else None
    return pa.table(data) if hasattr(data, "__arrow_c_stream__") else None
