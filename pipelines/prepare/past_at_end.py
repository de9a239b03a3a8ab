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
from embtables.pipelines.prepare.past import UNSEEN, Past, as_float32s
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
    config = past.config
    items = _with_unseen(np.arange(len(past.items.values)))
    users = _with_unseen(np.arange(len(past.users.values)))
    pair_users, pair_items = map(_with_unseen, past.pairs())
    return {
        ITEM: pa.table({config.item: _values(past.items.values, items), **_of_items(past, items)}),
        USER: pa.table({config.user: _values(past.users.values, users), **_of_users(past, users)}),
        USER_ITEM: pa.table(
            {
                config.user: _values(past.users.values, pair_users),
                config.item: _values(past.items.values, pair_items),
                **as_float32s(past.of_pairs(pair_users, pair_items, _moments(past, pair_users))),
            }
        ),
    }


def _of_items(past: Past, items: Int64s) -> dict[str, pa.Array]:
    moments = _moments(past, items)
    prices = past.prices(items, moments)
    found = as_float32s(past.of_items(items, moments))
    return found if prices is None else found | {"last_price": prices}


def _of_users(past: Past, users: Int64s) -> dict[str, pa.Array]:
    moments = _moments(past, users)
    offsets, ids = past.histories(users, moments)
    history = pa.LargeListArray.from_arrays(pa.array(offsets), pa.array(ids))
    return {**as_float32s(past.of_users(users, moments)), "history": history}


def _with_unseen(numbers: Int64s) -> Int64s:
    return np.append(numbers, UNSEEN)


def _values(values: pa.Array, numbers: Int64s) -> pa.Array:
    return values.take(pa.array(numbers, mask=numbers == UNSEEN))


def _moments(past: Past, numbers: Int64s) -> Int64s:
    """The moment after the last row, for each: what is strictly earlier is then everything."""
    return np.full(len(numbers), past.times[-1] + 1)
