"""`Batch`: what the features stage makes of rows of a log, and what a model trains on. `JaggedIds`: its ids."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from embtables.arguments import as_ids
from embtables.errors import ConfigError, DataError


@dataclass(frozen=True, slots=True)
class Jagged:
    """A list of values for each of B rows. Shape letters: B rows, N values.

    Attributes:
        values: (N, ...) the lists, one after the other.
        lengths: (B,) integers, how many values each row has.
        weights: (N,) float32, a weight for each value, or None.
    """

    values: Tensor
    lengths: Tensor
    weights: Tensor | None = None

    def rows(self) -> tuple[Tensor, ...]:
        """The values of each row."""
        return torch.split(self.values, self.lengths.tolist())


@dataclass(frozen=True, slots=True)
class JaggedIds:
    """Ids of B rows, a list for each row and feature. Shape letters: B rows, F features, N ids.

        >>> ids = JaggedIds.of({"user": [[7], [8]], "tags": [[1, 2], []]})
        >>> ids.values.tolist(), ids.lengths.tolist()
        ([7, 8, 1, 2], [1, 1, 2, 0])
        >>> ids["tags"].lengths.tolist()
        [2, 0]

    Attributes:
        keys: the features' names.
        values: (N,) int64 raw ids, feature after feature, and within one row after row.
        lengths: (F * B,) integers in the same order: how many ids each row has of each feature.
        num_rows: B.
        weights: (N,) float32, a weight for each id, or None.
    """

    keys: tuple[str, ...]
    values: Tensor
    lengths: Tensor
    num_rows: int
    weights: Tensor | None = None

    @classmethod
    def of(cls, lists: dict[str, list[list[int]]]) -> JaggedIds:
        """Ids given as a list for each row, by feature; every feature has as many rows.

        Raises:
            ConfigError: features have different numbers of rows, or there are none.
            DataError: a row holds anything else than integers.
        """
        if not isinstance(lists, Mapping) or not all(hasattr(of, "__len__") for of in lists.values()):
            raise DataError("give a dict: for each feature a list of ids for each row")
        rows = {len(of_feature) for of_feature in lists.values()}
        if len(rows) != 1:
            raise ConfigError(f"every feature needs a list for each row, received {sorted(rows)} rows")
        each = [
            as_ids(row, f"row {number:,}", feature=feature)
            for feature, of_feature in lists.items()
            for number, row in enumerate(of_feature)
        ]
        lengths = torch.tensor([len(row) for row in each], dtype=torch.int64)
        return cls(tuple(lists), torch.cat([torch.empty(0, dtype=torch.int64), *each]), lengths, rows.pop())

    def __getitem__(self, feature: str) -> Jagged:
        """One feature's ids. Raises ConfigError if there is no such feature."""
        if feature not in self.keys:
            raise ConfigError(f"is missing from the batch, which has: {', '.join(self.keys)}", feature=feature)
        place, b = self.keys.index(feature), self.num_rows
        lengths = self.lengths[place * b : (place + 1) * b]
        start = int(self.lengths[: place * b].sum())
        part = slice(start, start + int(lengths.sum()))
        return Jagged(self.values[part], lengths, None if self.weights is None else self.weights[part])


@dataclass(frozen=True, slots=True)
class Batch:
    """B rows of a log.

    Attributes:
        ids: raw ids, features in schema order. If any feature has per-id weights there are weights for all (1.0 where a
            feature has none).
        dense: (B, n_dense) float32, transformed.
        labels: (B, n_labels) float32, each 0 or 1.
        weight: (B,) float32 sample weights, or None if the schema names none.
        event_time_us: (B,) int64 microseconds since 1970-01-01 UTC, or None if the schema names none.
    """

    ids: JaggedIds
    dense: Tensor
    labels: Tensor
    weight: Tensor | None
    event_time_us: Tensor | None

    @property
    def num_rows(self) -> int:
        """B."""
        return self.dense.shape[0]

    @property
    def total_weight(self) -> float:
        """The sum of the rows' weights: B without weights."""
        return float(self.num_rows) if self.weight is None else float(self.weight.sum(dtype=torch.float64))
