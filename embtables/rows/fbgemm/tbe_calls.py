"""Calls of fbgemm's table-batched embeddings: made of a lookup, laid out as TBE wants them, joined into one.

A TBE serves a fixed row of features, all of them in every call, side by side: a feature that a lookup leaves out has
empty bags, and its columns have a gradient of zero.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from embtables.rows.protocol import Lookup


@dataclass(frozen=True, slots=True)
class Call:
    """Keys of all features of a TBE for B rows, and what became of them."""

    keys: Tensor
    offsets: Tensor
    weights: Tensor | None
    num_rows: int
    output: Tensor | None = None
    learning_rate: float | None = None
    gradient: Tensor | None = None


def offsets_of(counts: Tensor) -> Tensor:
    """(S, B) ids per bag -> (S * B + 1,) offsets."""
    return functional.pad(counts.reshape(-1).cumsum(0), (1, 0))


def call_of(lookup: Lookup, positions: tuple[int, ...]) -> Call:
    """A TBE's part of a lookup: its features by their positions there, those not looked up (-1) with empty bags."""
    b = lookup.num_rows
    if positions == tuple(range(len(lookup.features))):
        return Call(lookup.keys, lookup.offsets, lookup.weights, b)
    counts = lookup.offsets.diff().view(len(lookup.features), b)
    ends = lookup.offsets[:: max(b, 1)] if b else torch.zeros(len(lookup.features) + 1, dtype=torch.int64)
    bounds = ends.tolist()
    chosen = [slice(bounds[p], bounds[p + 1]) for p in positions if p >= 0]
    rows = torch.stack([counts[p] if p >= 0 else torch.zeros(b, dtype=torch.int64) for p in positions])
    keys = torch.cat([lookup.keys[c] for c in chosen])
    weights = None if lookup.weights is None else torch.cat([lookup.weights[c] for c in chosen])
    return Call(keys, offsets_of(rows), weights, b)


def lay_out(dims: Sequence[int], positions: Sequence[int], by_feature: Sequence[Tensor]) -> Tensor:
    """Gradients of the looked-up features (B, D) as (B, sum of `dims`): a call's columns, zero elsewhere."""
    b = by_feature[0].shape[0]
    result = torch.zeros(b, sum(dims))
    start = 0
    for dim, position in zip(dims, positions, strict=True):
        if position >= 0:
            result[:, start : start + by_feature[position].shape[1]] = by_feature[position]
        start += dim
    return result


def join(calls: Sequence[Call], num_features: int) -> Call:
    """Several calls as one along the batch, so that a row both touch is updated once."""
    counts = torch.cat([c.offsets.diff().view(num_features, c.num_rows) for c in calls], dim=1)
    keys, weights = [], []
    any_weights = any(c.weights is not None for c in calls)
    for feature in range(num_features):
        for c in calls:
            part = slice(int(c.offsets[feature * c.num_rows]), int(c.offsets[(feature + 1) * c.num_rows]))
            keys.append(c.keys[part])
            if any_weights:
                weights.append(torch.ones(len(keys[-1])) if c.weights is None else c.weights[part])
    return Call(
        torch.cat(keys),
        offsets_of(counts),
        torch.cat(weights) if any_weights else None,
        sum(c.num_rows for c in calls),
        gradient=torch.cat([c.gradient for c in calls if c.gradient is not None]),
    )
