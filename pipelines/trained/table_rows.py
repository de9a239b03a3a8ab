"""`TableRows`: the rows of a run's table for people: keys, raw ids where they are known, weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from embtables.errors import ConfigError
from embtables.ids.strings import hash_strings
from embtables.inputs.values import Int64s
from embtables.schema import Feature
from embtables.tables.table_set import Tables

if TYPE_CHECKING:
    import pandas as pd


def _named(ids: Int64s, text: pa.Array) -> pa.Array:
    """The string of each hash (n,), or null."""
    hashes = hash_strings(text)
    order = np.argsort(hashes)
    places = np.minimum(np.searchsorted(hashes, ids, sorter=order), len(order) - 1)
    found = order[places]
    return text.take(pa.array(found, mask=hashes[found] != ids))


class TableRows:
    """The rows that a table has now, ascending by key. Shape letters: n rows, D dimension.

    Args:
        tables: the tables of a run.
        name: one of them.
        text_of: of a feature, the distinct strings that its ids are hashes of; None if they are not known.

    Raises:
        ConfigError: there is no such table.
    """

    def __init__(self, tables: Tables, name: str, text_of: Callable[[Feature], pa.Array | None]) -> None:
        names = [config.name for config in tables.configs]
        if name not in names:
            raise ConfigError(f"there is no such table; there are: {', '.join(names)}", table=name)
        self._tables, self.name, self._text_of = tables, name, text_of

    def __len__(self) -> int:
        return self._tables.stats()[self.name].rows

    def to_arrow(self) -> pa.Table:
        """`key` int64; `id` where one encoder makes the keys and can be undone; `weight` lists of D float32.

        Ids are strings where they were strings in the rows that the run was trained on, which are here as long as the
        run is (a null: not among them); of a run that was loaded, their 64-bit hashes. Other encoders, and tables that
        ids share rows of, have no `id`.
        """
        weight = self._tables.weight(self.name).numpy()
        found = self._tables.keys(self.name)
        keys = np.arange(len(weight)) if found is None else found.numpy()
        columns: dict[str, Any] = {"key": keys}
        ids = self._ids(keys)
        if ids is not None:
            columns["id"] = ids
        columns["weight"] = pa.FixedSizeListArray.from_arrays(pa.array(weight.reshape(-1)), weight.shape[1])
        return pa.table(columns)

    def to_pandas(self) -> pd.DataFrame:
        """The same, with a column for each element of the weights: `weight_0` to `weight_<D-1>`."""
        table = self.to_arrow()
        weight = table.column("weight").combine_chunks()
        dim = weight.type.list_size
        values = weight.flatten().to_numpy().reshape(-1, dim)
        frame = table.drop_columns(["weight"])
        for place in range(dim):
            frame = frame.append_column(f"weight_{place}", pa.array(values[:, place]))
        try:
            return frame.to_pandas()
        except ImportError as error:
            raise ConfigError(f"to_pandas needs pandas ({error}); to_arrow does without", table=self.name) from None

    def _ids(self, keys: Any) -> Any:
        readers = [read for read in self._tables.features if read.table.name == self.name]
        first = readers[0]
        if first.keys_per_id != 1 or not all(read.encoder.makes_keys_as(first.encoder) for read in readers):
            return None
        ids = first.encoder.ids_of(keys)
        texts = [self._text_of(read.feature) for read in readers]
        if ids is None or any(text is None for text in texts):
            return ids
        return _named(ids, pa.concat_arrays(texts))

    def __repr__(self) -> str:
        dim = next(config.dim for config in self._tables.configs if config.name == self.name)
        return f"TableRows({self.name}: {len(self):,} rows of {dim})"
