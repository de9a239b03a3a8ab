"""Lookups of single rows of one feature, as most tests want them."""

from __future__ import annotations

from torch import Tensor

from embtables.rows.protocol import RowReader, RowsLookup, RowTrainer


def gather(store: RowReader, feature: int, keys: Tensor) -> Tensor:
    """The rows of one feature's keys, as inference reads them."""
    (rows,) = store.gather([feature], [keys])
    return rows


def train_rows(store: RowTrainer, feature: int, keys: Tensor) -> tuple[Tensor, RowsLookup]:
    """The rows of one feature's keys in training, and what takes their gradient."""
    (rows,), lookup = store.train_rows([feature], [keys])
    return rows, lookup
