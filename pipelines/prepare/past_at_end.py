"""The past as of the end of a log: what examples of the moment after its last row would hold, by item, user and pair.

Written beside the examples, when all of the past is in memory, and read when a version for servers is published. The
last row of each table has null keys: it is that of an item, user or pair that the log never saw.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from embtables.errors import BadFileError
from embtables.pipelines.prepare.past import Past
from embtables.pipelines.whole_parquet import WholeParquet
from embtables.schema import SampledNegatives

Int64s = npt.NDArray[np.int64]

FOLDER = "_past"  # no reader of the examples looks into a folder of such a name
ITEM, USER, USER_ITEM = "item", "user", "user_item"


def past_keys(config: SampledNegatives) -> Mapping[str, tuple[str, ...]]:
    """The key columns of each table."""
    return {ITEM: (config.item,), USER: (config.user,), USER_ITEM: (config.user, config.item)}


def write_past_at_end(past: Past, folder: Path) -> None:
    """Writes the tables below a folder of prepared examples. Raises OSError."""
    (folder / FOLDER).mkdir()
    for name, table in _tables(past).items():
        with WholeParquet(folder / FOLDER / f"{name}.parquet", compression="zstd", write_page_checksum=True) as file:
            file.write(table)


def read_past_at_end(folder: Path, name: str) -> pa.Table:
    """One of the tables. Raises BadFileError if it is damaged."""
    path = folder / FOLDER / f"{name}.parquet"
    try:
        return pq.read_table(path, page_checksum_verification=True, partitioning=None)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise BadFileError(
            f"cannot be read: {' '.join(str(error).split())}; remove the folder of prepared examples, which is then "
            "built again",
            file=path,
        ) from error


def _tables(past: Past) -> dict[str, pa.Table]:
    config, items, users = past.config, past.items, past.users
    pairs = np.unique(users.numbers * len(items.values) + items.numbers)
    pair_users, pair_items = np.divmod(pairs, len(items.values))
    keys = {
        ITEM: {config.item: _values(items.values, np.arange(len(items.values)))},
        USER: {config.user: _values(users.values, np.arange(len(users.values)))},
        USER_ITEM: {config.user: _values(users.values, pair_users), config.item: _values(items.values, pair_items)},
    }
    return {name: _with_columns(pa.table(of), past.at_end(of)) for name, of in keys.items()}


def _with_columns(table: pa.Table, columns: pa.Table) -> pa.Table:
    for name in columns.column_names:
        table = table.append_column(name, columns.column(name))
    return table


def _values(values: pa.Array, numbers: Int64s) -> pa.Array:
    """The values of numbers, and a null after them: what there was never an event of."""
    return pa.concat_arrays([values.take(pa.array(numbers)), pa.nulls(1, values.type)])
