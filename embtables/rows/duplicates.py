"""Summing the gradients of duplicate keys, deterministically: stable sort, then sums in order of occurrence."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True, slots=True)
class SparseGradient:
    """Gradients of bags: key i adds weight i times bag gradient `bags[i]`.

    Attributes:
        keys: (N,) int64.
        bags: (N,) int64 row numbers of `gradient`.
        gradient: (M, D) float32.
        weights: (N,) float32 or None for ones.
    """

    keys: Tensor
    bags: Tensor
    gradient: Tensor
    weights: Tensor | None


def bag_numbers(offsets: Tensor) -> Tensor:
    """(M + 1,) offsets -> (N,) the bag of each key."""
    return torch.repeat_interleave(torch.arange(offsets.shape[0] - 1), offsets.diff())


def concatenate(parts: list[SparseGradient]) -> SparseGradient:
    """Several lookups' gradients as one, in order."""
    if len(parts) == 1:
        return parts[0]
    starts = [0]
    for part in parts:
        starts.append(starts[-1] + part.gradient.shape[0])
    weights = None
    if any(p.weights is not None for p in parts):
        weights = torch.cat([torch.ones(len(p.keys)) if p.weights is None else p.weights for p in parts])
    return SparseGradient(
        torch.cat([p.keys for p in parts]),
        torch.cat([p.bags + start for p, start in zip(parts, starts[:-1], strict=True)]),
        torch.cat([p.gradient for p in parts]),
        weights,
    )


def sum_duplicates(sparse: SparseGradient) -> tuple[Tensor, Tensor]:
    """Distinct keys (U,) in ascending order and their summed gradients (U, D)."""
    ordered, order = torch.sort(sparse.keys, stable=True)
    if len(ordered) == 0:
        return ordered, sparse.gradient.new_zeros(0, sparse.gradient.shape[1])
    is_first = torch.ones(len(ordered), dtype=torch.bool)
    torch.ne(ordered[1:], ordered[:-1], out=is_first[1:])
    starts = is_first.nonzero().squeeze(1)
    # embedding_bag is torch's fused gather-and-sum: the (N, D) gradients of the single keys are never laid out.
    summed = functional.embedding_bag(
        sparse.bags[order],
        sparse.gradient,
        starts,
        mode="sum",
        per_sample_weights=None if sparse.weights is None else sparse.weights[order],
    )
    return ordered[starts], summed
