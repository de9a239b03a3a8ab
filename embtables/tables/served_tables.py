"""`ServedTables`: tables of published versions, read by any number of threads beside one that takes versions over."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from torch import Tensor

from embtables.arguments import as_ids
from embtables.errors import StateError
from embtables.given import need
from embtables.ids import Artifacts
from embtables.rows.content import TableContent
from embtables.rows.optimizers import WEIGHT
from embtables.rows.served.rows import ServedRows
from embtables.schema import Feature, Table
from embtables.tables.checks import check_made_of
from embtables.tables.lookup_tables import LookupTables


class ServedTables(LookupTables):
    """Tables for inference alone, all without rows at first; `take_over` fills and changes them.

    No lookup takes a lock or waits. A row that a version changes is read as before or after, never in part. Nothing
    here learns: there is no optimizer state, and views over these tables must be in `eval` mode.

    Args:
        tables, features, seed, artifacts, shares_keys: see Tables.

    Raises:
        ConfigError: as Tables; or a table has more than 2^32 - 2 rows.

    Example:
        >>> import embtables, torch
        >>> item = embtables.CollisionlessTable(name="item", dim=2, optimizer=embtables.Sgd(learning_rate=0.1))
        >>> made_of = [item], [embtables.Feature(name="seen", table="item")]
        >>> trained, served = embtables.Tables(*made_of, seed=0), ServedTables(*made_of, seed=0)
        >>> trained.set("item", torch.tensor([7]), torch.ones(1, 2))
        >>> served.take_over("item", trained.table_content("item"))
        >>> served.get("item", [7, 8])
        tensor([[1., 1.],
                [0., 0.]])
        >>> served.known("item", [7, 8])
        tensor([ True, False])
    """

    def __init__(
        self,
        tables: Sequence[Table],
        features: Sequence[Feature],
        *,
        seed: int,
        artifacts: Mapping[str, Artifacts] | None = None,
        shares_keys: bool = True,
    ) -> None:
        check_made_of(tables, features, "host", (), {} if artifacts is None else artifacts)
        super().__init__(tables, features, seed=seed, artifacts=artifacts, shares_keys=shares_keys)
        self.rows: ServedRows = ServedRows(self.stored, [self._numbers[table.name] for table in self._read])
        self.lookups: ServedRows = self.rows

    def reserve(self, table: str, rows: int) -> None:
        """Makes room for so many rows in all, so that nothing moves while `take_over` fills the table."""
        self.rows.reserve(self._number(table), rows)

    def take_over(self, table: str, content: TableContent, *, more: bool = False) -> None:
        """Takes over what a version has of a table. One thread at a time.

        Readers see each row as before or as after. Of a snapshot, start with tables that have no rows: a key that it
        lacks keeps the row that it has. A content's scale changes all rows, also those that are not in it; where it
        rises (training then made the scale 1, and all rows changed), keys that the content lacks lose their rows.

        Args:
            content: with weights, whatever else it has; nothing streamed. All of the version, or the part of some
                buckets.
            more: other parts of the same version will come. The table's clock moves with the last one.

        Raises:
            ConfigError: this is no content, or there is no such table.
            StateError: the weights are not (n, D); or it is a part of another version than the one before, or a scale
                rises without all rows of a fixed table.
            DataError: a key is outside a fixed table; the content may be taken over in part then.
        """
        number = self._number(table)
        need(content, TableContent, "content", "a table's content")
        weights, needed = content.columns.get(WEIGHT), (len(content.keys), self.configs[number].dim)
        if weights is None or weights.shape != needed:
            shown = "are missing" if weights is None else f"have shape {weights.shape}"
            raise StateError(f"weights to take over {shown}, the table needs {needed}", table=table)
        self.rows.take_over(number, content, more=more)

    def read(self, table: str, keys: Tensor) -> Tensor:
        """The rows (n, D) of keys (n,); a key without a row reads the cold row.

        Raises:
            ConfigError: there is no such table.
            DataError: these are no keys, or one is outside a fixed table.
        """
        number = self._number(table)
        return self.rows.read(number, WEIGHT, as_ids(keys, "keys", table=table))

    def is_cold(self, table: str, keys: Tensor) -> npt.NDArray[np.bool_]:
        """Which keys (n,) read the cold row: no row, or one past its ttl. Raises as `read`."""
        number = self._number(table)
        return ~self.rows.has_rows(number, as_ids(keys, "keys", table=table)).numpy()

    def gather_into(
        self,
        number: int,
        keys: npt.NDArray[np.int64],
        out: npt.NDArray[np.float32],
        is_cold: npt.NDArray[np.bool_] | None = None,
    ) -> int:
        """See LookupTables; here in one native call without checks of types, a few microseconds for some keys."""
        return self.rows.gather_into(number, keys, out, is_cold)

    def gather_bytes(self, number: int, keys: npt.NDArray[np.int64]) -> tuple[bytes, int]:
        """The rows (n, D) float32 of keys (n,), contiguous, as bytes, and how many keys read the cold row.

        Raises:
            DataError: a key is outside a fixed table.
        """
        return self.rows.gather_bytes(number, keys)

    def num_rows(self, table: str) -> int:
        """How many rows a table holds, those past their ttl among them."""
        return self.rows.num_rows(self._number(table))

    def seen(self, table: str, keys: Tensor) -> npt.NDArray[np.uint32]:
        """(n,) the table's clock when training last saw each key; 0 for one without a row, and in a fixed table.

        Raises:
            ConfigError: there is no such table.
            DataError: these are no keys.
        """
        number = self._number(table)
        return self.rows.seen(number, as_ids(keys, "keys", table=table).numpy())

    def num_bytes(self, table: str) -> int:
        """Bytes of a table's rows, those that readers still hold among them, and of the map of its keys."""
        return self.rows.num_bytes(self._number(table))

    def now(self, table: str) -> int:
        """The table's clock, in seconds of event time."""
        return self.rows.now(self._number(table))
