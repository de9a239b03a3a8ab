"""`ServedRows`: lookups on any number of threads beside one that takes versions over.

    a version's tables (TableContent, projection `weights`) -> take_over -> native rows (embtables/native/serve)
    keys of a lookup -> pooled | gather -> rows, each whole and of one version; a key without a row reads the cold row

It holds no optimizer state, no waiting keys and no counts, and learns nothing: a RowReader (embtables/rows/protocol.py)
and what changes its rows. A reader waits for nothing. A row that a version changes lies beside its former one until the
readers of that have gone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from embtables.errors import ConfigError, DataError, StateError
from embtables.native import _core, isa
from embtables.rows.content import TableContent
from embtables.rows.optimizers import WEIGHT
from embtables.rows.protocol import Lookup
from embtables.rows.stored_table import StoredTable
from embtables.schema import CollisionlessTable, FixedTable

FOREVER = 2**32 - 1
_NO_KEYS = np.empty(0, np.int64)


class ServedRows:
    """Rows of several tables, all without rows at first.

    Args:
        tables: as they are trained; parts of tables are refused.
        feature_tables: the number of each feature's table.

    Raises:
        ConfigError: a table is a part of one, or larger than 2^32 - 2 rows.
    """

    def __init__(self, tables: Sequence[StoredTable], feature_tables: Sequence[int]) -> None:
        self._tables = list(tables)
        self._feature_tables = list(feature_tables)
        self._rows = _core.ServedStore([_config(table) for table in tables], self._feature_tables, isa())

    def pooled(self, lookup: Lookup) -> Tensor:
        """See RowReader."""
        lookup = lookup.repeated()
        features = np.array(lookup.features, np.int32)
        width = sum(self._tables[self._feature_tables[f]].config.dim for f in lookup.features)
        out = torch.empty(lookup.num_rows, width)
        weights = None if lookup.weights is None else _numpy(lookup.weights.float())
        keys, offsets = _numpy(lookup.keys), _numpy(lookup.offsets)
        try:
            self._rows.pooled(features, keys, offsets, weights, lookup.num_rows, torch.get_num_threads(), out.numpy())
        except IndexError as error:
            raise DataError(str(error)) from None
        return out

    def pooled_into(
        self,
        features: npt.NDArray[np.int32],
        keys: npt.NDArray[np.int64],
        offsets: npt.NDArray[np.int64],
        weights: npt.NDArray[np.float32] | None,
        out: npt.NDArray[np.float32],
    ) -> None:
        """The lookup of `pooled` (see Lookup), given as contiguous arrays, into (B, sum of D); on this thread alone.

        Raises:
            DataError: a key is outside a fixed table.
        """
        try:
            self._rows.pooled(features, keys, offsets, weights, len(out), 1, out)
        except IndexError as error:
            raise DataError(str(error)) from None

    def gather(self, features: Sequence[int], keys: Sequence[Tensor]) -> list[Tensor]:
        """See RowReader."""
        return [
            self._gathered(self._feature_tables[feature], of_feature)
            for feature, of_feature in zip(features, keys, strict=True)
        ]

    def read(self, table: int, name: str, keys: Tensor) -> Tensor:
        """See RowReader; `weight` is all that a row has."""
        if name != WEIGHT:
            raise ConfigError(f"rows that are served have no '{name}'", table=self._tables[table].config.name)
        return self._gathered(table, keys)

    def has_rows(self, table: int, keys: Tensor) -> Tensor:
        """See RowReader; of a row past its ttl it says no."""
        return torch.from_numpy(~self.cold(table, _numpy(keys)))

    def cold(self, table: int, keys: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """Which keys (n,) read the cold row. Raises DataError as `read`."""
        is_cold = np.empty(len(keys), np.bool_)
        try:
            self._rows.cold(table, keys, is_cold)
        except IndexError as error:
            raise DataError(str(error), table=self._tables[table].config.name) from None
        return is_cold

    def gather_into(
        self,
        table: int,
        keys: npt.NDArray[np.int64],
        out: npt.NDArray[np.float32],
        is_cold: npt.NDArray[np.bool_] | None,
    ) -> int:
        """See ServedTables."""
        try:
            return self._rows.gather(table, keys, 1, out, is_cold)
        except IndexError as error:
            raise DataError(str(error), table=self._tables[table].config.name) from None

    def gather_bytes(self, table: int, keys: npt.NDArray[np.int64]) -> tuple[bytes, int]:
        """See ServedTables."""
        try:
            return self._rows.gather_bytes(table, keys)
        except IndexError as error:
            raise DataError(str(error), table=self._tables[table].config.name) from None

    def _gathered(self, table: int, keys: Tensor) -> Tensor:
        out = torch.empty(len(keys), self._tables[table].config.dim)
        try:
            self._rows.gather(table, _numpy(keys), torch.get_num_threads(), out.numpy(), None)
        except IndexError as error:
            raise DataError(str(error), table=self._tables[table].config.name) from None
        return out

    def take_over(self, table: int, content: TableContent, *, more: bool) -> None:
        """What a version has of a table, or a piece of it. Rows that others read meanwhile are as before it, or as it
        has them, at the scale that goes with them.

        Args:
            content: of the projection `weights` or more; checked by the caller.
            more: further pieces of the same version will come.

        Raises:
            DataError: it has a key outside a fixed table. It may be taken over in part then.
            StateError: pieces have different scales, the scale rises and rows of a fixed table are missing, or memory
                ran out.
        """
        of, grows = self._tables[table].config, isinstance(self._tables[table].config, CollisionlessTable)
        cold = content.cold.get(WEIGHT) if grows else None
        try:
            self._rows.apply(
                table,
                np.ascontiguousarray(content.keys),
                np.ascontiguousarray(content.columns[WEIGHT], np.float32).reshape(-1),
                np.ascontiguousarray(content.seen) if grows else None,
                np.ascontiguousarray(content.tombstones) if grows else _NO_KEYS,
                None if cold is None else np.ascontiguousarray(cold, np.float32).reshape(-1),
                content.now,
                content.scale,
                more,
            )
        except IndexError as error:
            raise DataError(str(error), table=of.name) from None
        except ValueError as error:
            raise StateError(str(error), table=of.name) from None
        except MemoryError as error:
            raise StateError(f"memory ran out while rows were taken over: {error}", table=of.name) from error

    def reserve(self, table: int, rows: int) -> None:
        """Makes room for so many rows in all, so that nothing moves while they come. Raises StateError if there is no
        memory for them."""
        try:
            self._rows.reserve(table, rows)
        except MemoryError as error:
            name = self._tables[table].config.name
            raise StateError(f"{rows:,} rows do not fit into memory: {error}", table=name) from error

    def seen(self, table: int, keys: npt.NDArray[np.int64]) -> npt.NDArray[np.uint32]:
        """(n,) the table's clock when each key was last seen; 0 for one without a row, and in a fixed table."""
        clocks = np.empty(len(keys), np.uint32)
        self._rows.seen(table, keys, clocks)
        return clocks

    def num_rows(self, table: int) -> int:
        """How many rows it holds, those past their ttl among them."""
        return int(self._rows.stats(table)["rows"])

    def now(self, table: int) -> int:
        """Its clock."""
        return int(self._rows.stats(table)["now"])

    def num_bytes(self, table: int) -> int:
        """Bytes of its rows, those that readers still hold among them, and of the map of its keys."""
        return int(self._rows.stats(table)["bytes"])


def _numpy(tensor: Tensor) -> npt.NDArray[Any]:
    found: npt.NDArray[Any] = tensor.detach().contiguous().numpy()
    return found


def _config(table: StoredTable) -> _core.ServedConfig:
    config = table.config
    if table.is_part:
        raise ConfigError("a part of a table cannot be served", table=config.name)
    rows = config.num_rows if isinstance(config, FixedTable) else 0
    if rows >= 2**32 - 1:
        raise ConfigError(f"has {rows:,} rows; a table that is served holds at most 2^32 - 2", table=config.name)
    ttl = config.ttl_seconds if isinstance(config, CollisionlessTable) else None
    return _core.ServedConfig(config.dim, table.seed, rows, FOREVER if ttl is None else ttl)
