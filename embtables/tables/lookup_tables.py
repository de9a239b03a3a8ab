"""`LookupTables`: what a model looks up in, whether training changes it (`Tables`) or published versions do
(`ServedTables`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from embtables.arguments import as_ids
from embtables.errors import ConfigError
from embtables.given import as_flag, as_integer
from embtables.ids import Artifacts
from embtables.rows.protocol import RowLookups, RowReader
from embtables.schema import Feature, Table
from embtables.shard.world import SingleRank, World
from embtables.tables.combine import combined
from embtables.tables.shared_keys import stored_tables
from embtables.tables.table_feature import TableFeature, reader_of, table_features


class LookupTables:
    """A set of tables and the features that read them: what views and scorers need of it.

    Attributes:
        configs: the tables' configurations, in their order.
        seed: of the run; initial rows follow from it, and the order of keys in files.
        features: what reads the tables, each with its table and encoder.
        stored: how row stores and files have the tables.
        rows: their rows.
        lookups: what views read rows by.
        world: the ranks that hold the tables together.
    """

    rows: RowReader
    lookups: RowLookups
    world: World

    def __init__(
        self,
        tables: Sequence[Table],
        features: Sequence[Feature],
        *,
        seed: int,
        artifacts: Mapping[str, Artifacts] | None = None,
        shares_keys: bool = True,
    ) -> None:
        as_flag(shares_keys, "shares_keys")
        self.world = SingleRank()
        self.configs = tuple(tables)
        self.seed = as_integer(seed, "seed")
        self._numbers = {table.name: number for number, table in enumerate(tables)}
        self.features = table_features(features, [tables[self._numbers[f.table]] for f in features], artifacts or {})
        self.stored = stored_tables(tables, features, self.seed, shares_keys=shares_keys)

    @property
    def _read(self) -> list[Table]:
        """The table of each feature of the row store."""
        return [of.table for of in self.features for _ in range(of.blocks)]

    def _number(self, table: str) -> int:
        """The number of a table. Raises ConfigError if there is no such table."""
        if not isinstance(table, str) or table not in self._numbers:
            raise ConfigError(f"there is no such table; there are: {', '.join(self._numbers)}", table=table)
        return self._numbers[table]

    def _keys_and_reader(self, table: str, ids: Tensor, feature: str | None) -> tuple[Tensor, TableFeature]:
        """The T keys (n * T,) of every raw id (n,), and the feature whose encoder made them."""
        read = reader_of(self.features, self.configs[self._number(table)], feature)
        return torch.from_numpy(read.encoder.encode(as_ids(ids, table=table).numpy())), read

    def keys_of(self, table: str, ids: Tensor, feature: str | None) -> tuple[int, Tensor]:
        """The table's number and the key (n,) of every raw id (n,), as the feature's encoder makes it.

        Raises:
            ConfigError: no such table or feature, encoders that differ, or an encoder with several rows per id.
            DataError: these are no ids (embtables/arguments/integers.py), or the encoder refuses one.
        """
        read = reader_of(self.features, self.configs[self._number(table)], feature)
        if read.keys_per_id != 1:
            name, rows = read.feature.name, read.keys_per_id
            raise ConfigError(f"feature '{name}' has {rows} rows per id, so an id has no row of its own", table=table)
        return self._numbers[table], self._keys_and_reader(table, ids, feature)[0]

    def get(self, table: str, ids: Tensor, *, feature: str | None = None) -> Tensor:
        """Vectors of raw ids (n,), as inference reads them; an id without a row reads the cold row.

        Args:
            ids: integers of any type, in a torch tensor, a numpy or Arrow array, a column of a data frame, or a list.
                A uint64 keeps its 64 bits, as in a log. Strings are hashed first, as training hashes them:
                `embtables.hash_strings`.
            feature: the feature whose encoder turns ids into keys; needed if the table's features encode differently.

        Returns:
            (n, D). If the encoder has T rows per id, they are combined; if it concatenates them: (n, T * D).

        Raises:
            ConfigError: no such table or feature, or encoders that differ.
            DataError: these are no ids, or the encoder refuses one.
        """
        keys, read = self._keys_and_reader(table, ids, feature)
        rows = self.rows.read(self._numbers[table], "weight", keys)
        return combined(rows, read.keys_per_id, read.combine)

    def known(self, table: str, ids: Tensor, *, feature: str | None = None) -> Tensor:
        """Which raw ids (n,) have a row, (n,) bool; all of them in a fixed table. An id with several rows has them all.

        Args:
            ids, feature: as of `get`.

        Raises:
            ConfigError, DataError: as `get`.
        """
        keys, read = self._keys_and_reader(table, ids, feature)
        return self.rows.has_rows(self._numbers[table], keys).view(-1, read.keys_per_id).all(dim=1)

    def number(self, table: str) -> int:
        """The number of a table, for `gather_into`. Raises ConfigError if there is no such table."""
        return self._number(table)

    def gather_into(
        self,
        number: int,
        keys: npt.NDArray[np.int64],
        out: npt.NDArray[np.float32],
        is_cold: npt.NDArray[np.bool_] | None = None,
    ) -> int:
        """The rows of keys (n,) into `out` (n, D), as inference reads them.

        Args:
            number: of the table (`number`).
            keys, out: contiguous.
            is_cold: (n,), receives which keys read the cold row.

        Returns:
            How many did.

        Raises:
            DataError: a key is outside a fixed table.
        """
        of_keys = torch.from_numpy(keys)
        cold = ~self.rows.has_rows(number, of_keys).numpy()
        out[:] = self.rows.read(number, "weight", of_keys).numpy()
        if is_cold is not None:
            is_cold[:] = cold
        return int(cold.sum())

    @property
    def artifacts(self) -> dict[str, Artifacts]:
        """The data of encoders, by feature; only of encoders that have any."""
        return {read.feature.name: read.encoder.artifacts for read in self.features if read.encoder.artifacts}
