"""`Embedder`: rows of raw ids of a feature, or of keys of a table, as lookups of inference read them."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch

from embtables.arguments import as_ids
from embtables.errors import DataError
from embtables.ids.strings import hash_strings
from embtables.models.scorer import Scorer
from embtables.serving.refusals import Refusal, unknown
from embtables.serving.scoring.lookup.lookups import shown_readers
from embtables.tables.combine import combined
from embtables.tables.served_tables import ServedTables

Float32s = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]


class Embedder:
    """Looks rows up in the tables of a version. Shape letters: n ids, D dimension.

    Args:
        scorer: of the version.

    Attributes:
        readers: by name the features that have embeddings; of a model with first-order weights alone, what reads those.
    """

    def __init__(self, scorer: Scorer) -> None:
        self._tables = scorer.tables
        self._numbers = {config.name: number for number, config in enumerate(scorer.tables.configs)}
        self.readers = {read.feature.name: read for read in shown_readers(scorer.tables)}

    def bytes_of(
        self, feature: str | None, table: str | None, ids: npt.NDArray[np.int64]
    ) -> tuple[bytes, int, int, str]:
        """Rows of ids of a feature or keys of a table as bytes, their D, how many are cold, and the table.

        Args:
            ids: (n,), contiguous.

        Raises:
            Refusal: as `of_feature` and `of_table`.
        """
        read = None if feature is None else self.readers.get(feature)
        name = table if read is None else read.table.name
        number = None if name is None else self._numbers.get(name)
        if number is None or (read is not None and read.keys_per_id != 1):
            rows, is_cold, of = self.of_table(table or "", ids) if feature is None else self.of_feature(feature, ids)
            return rows.tobytes(), rows.shape[1], int(np.count_nonzero(is_cold)), of
        config = self._tables.configs[number]
        assert isinstance(self._tables, ServedTables)
        try:
            keys = ids if read is None else read.encoder.encode(ids)
            packed, cold = self._tables.gather_bytes(number, keys)
        except DataError as error:
            raise Refusal(422, error.message, "ids" if table is None else "keys") from None
        return packed, config.dim, cold, config.name

    def of_feature(self, name: str, ids: Any) -> tuple[Float32s, Mask, str]:
        """Rows (n, D) of raw ids of a feature, (n,) which read a cold row, and the table that they are of.

        Args:
            ids: (n,) int64, or a list of integers or strings.

        Raises:
            Refusal: 404, there is no such feature with embeddings; 422, these are no ids.
        """
        read = self.readers.get(name)
        if read is None:
            raise unknown("feature", name, self.readers, "feature", status=404)
        try:
            keys = read.encoder.encode(_integers(ids, name))
        except DataError as error:
            raise Refusal(422, error.message, "ids") from None
        rows, is_cold = self._rows(self._numbers[read.table.name], keys, "ids")
        if read.keys_per_id == 1:
            return rows, is_cold, read.table.name
        vectors = combined(torch.from_numpy(rows), read.keys_per_id, read.combine).numpy()
        is_cold = np.logical_or.reduce(is_cold.reshape(-1, read.keys_per_id), axis=1)
        return vectors, is_cold, read.table.name

    def of_table(self, name: str, keys: Any) -> tuple[Float32s, Mask, str]:
        """Rows (n, D) of keys of a table, (n,) which read the cold row, and the table.

        Raises:
            Refusal: 404, there is no such table; 422, these are no keys, or one is outside a fixed table.
        """
        number = self._numbers.get(name)
        if number is None:
            raise unknown("table", name, self._numbers, "table", status=404)
        try:
            integers = as_ids(keys, "keys", table=name).numpy()
        except DataError as error:
            raise Refusal(422, error.message, "keys") from None
        return *self._rows(number, integers, "keys"), name

    def _rows(self, number: int, keys: npt.NDArray[np.int64], field: str) -> tuple[Float32s, Mask]:
        rows = np.empty((len(keys), self._tables.configs[number].dim), np.float32)
        is_cold = np.empty(len(keys), np.bool_)
        try:
            self._tables.gather_into(number, np.ascontiguousarray(keys), rows, is_cold)
        except DataError as error:
            raise Refusal(422, error.message, field) from None
        return rows, is_cold


def _integers(ids: Any, feature: str) -> npt.NDArray[np.int64]:
    """The ids as int64, strings hashed."""
    if isinstance(ids, np.ndarray) and ids.dtype == np.int64 and ids.ndim == 1:
        return np.ascontiguousarray(ids)
    if isinstance(ids, list) and ids and type(ids[0]) is str and set(map(type, ids)) == {str}:
        try:
            return hash_strings(pa.array(ids, pa.string()))
        except UnicodeEncodeError:
            raise DataError("holds a string that is not UTF-8") from None
    found: npt.NDArray[np.int64] = as_ids(ids, hash_strings=hash_strings, feature=feature).numpy()
    return found
