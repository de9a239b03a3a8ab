"""Sequence lookups of one slot, as most tests want them."""

from __future__ import annotations

from torch import Tensor

from embtables.rows.protocol import RowStore


def gather(store: RowStore, slot: int, keys: Tensor, *, keep: bool) -> tuple[Tensor, object]:
    """The rows of one slot's keys, and the lookup's context."""
    (rows,), context = store.gather([slot], [keys], keep=keep)
    return rows, context


def add_row_gradient(store: RowStore, context: object, gradient: Tensor) -> None:
    """The gradient of what `gather` gave."""
    store.add_row_gradients(context, [gradient])
