"""How the T rows of an id become one vector, and how its gradient comes back to them.

Shape letters: n ids, T rows of each, D dim, B rows of a batch.
"""

from __future__ import annotations

import torch
from torch import Tensor

from embtables.ids import Combine


def combined(rows: Tensor, num_keys: int, how: Combine) -> Tensor:
    """Rows (n * T, D), the T rows of an id side by side -> vectors (n, D), or (n, T * D) if they are concatenated.

    >>> combined(torch.tensor([[1.0, 2.0], [3.0, 4.0]]), 2, "product")
    tensor([[3., 8.]])
    """
    if num_keys == 1:
        return rows
    each = rows.view(len(rows) // num_keys, num_keys, rows.shape[1])  # (n, T, D)
    if how == "sum":
        return each.sum(dim=1)
    if how == "mean":
        return each.sum(dim=1) / num_keys
    if how == "concat":
        return each.flatten(1)
    product = each[:, 0]
    for key in range(1, num_keys):
        product = product * each[:, key]
    return product


def row_gradients(gradient: Tensor, rows: Tensor | None, num_keys: int, how: Combine) -> Tensor:
    """The gradient of `combined`'s vectors -> of its rows (n * T, D).

    Args:
        rows: (n * T, D), which a product alone needs.
    """
    if num_keys == 1:
        return gradient
    if how == "sum":
        return gradient.repeat_interleave(num_keys, dim=0)
    if how == "mean":
        return (gradient / num_keys).repeat_interleave(num_keys, dim=0)
    if how == "concat":
        return gradient.reshape(len(gradient) * num_keys, gradient.shape[1] // num_keys)
    assert rows is not None
    return (gradient[:, None] * _product_of_others(rows.view(len(gradient), num_keys, rows.shape[1]))).flatten(0, 1)


def _product_of_others(each: Tensor) -> Tensor:
    """For each of T rows the product of the T - 1 others, (n, T, D) -> (n, T, D)."""
    # Products of what lies before and after each row, and no division: a row may be 0.
    found = torch.ones_like(each)
    before, after = torch.ones_like(each[:, 0]), torch.ones_like(each[:, 0])
    num_keys = each.shape[1]
    for key in range(num_keys):
        found[:, key] *= before
        found[:, num_keys - 1 - key] *= after
        before = before * each[:, key]
        after = after * each[:, num_keys - 1 - key]
    return found


def pooled(vectors: Tensor, lengths: Tensor, weights: Tensor | None, *, mean: bool) -> Tensor:
    """Vectors (n, D) of ids -> weighted sums (B, D) over the `lengths` (B,) of the rows' lists; autograd goes through.

    Args:
        weights: (n,) of each id, or None for ones.
        mean: divides by the number of ids, weights or not.
    """
    if weights is not None:
        vectors = vectors * weights.float()[:, None]
    b = len(lengths)
    of = torch.repeat_interleave(torch.arange(b), lengths.long())
    sums = vectors.new_zeros(b, vectors.shape[1]).index_add(0, of, vectors)
    return sums / lengths.clamp(min=1)[:, None] if mean else sums
