"""The ids of the benchmark: 28 features of unequal tables, two with about twenty ids per row and 26 with one."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from embtables.rows.protocol import Lookup

FEATURES = 28
LONG_FEATURES = 2
IDS_PER_LIST = 20
ZIPF = 1.05
Ints = npt.NDArray[np.int64]


def table_sizes(total: int) -> list[int]:
    """Rows of the tables, each a fifth smaller than the one before."""
    share = 0.8 ** np.arange(FEATURES)
    sizes = np.maximum((share / share.sum() * total).astype(np.int64), 100)
    return [int(size) for size in sizes]


def zipf_ranks(rng: np.random.Generator, n: int, values: int) -> Ints:
    """Ranks 0..values-1 with P(rank) ~ (rank + 1)^-1.05, by the inverse of the continuous distribution."""
    e = 1.0 - ZIPF
    ranks = ((rng.random(n) * ((values + 1.0) ** e - 1.0) + 1.0) ** (1.0 / e) - 1.0).astype(np.int64)
    return np.asarray(np.clip(ranks, 0, values - 1), np.int64)


def scattered(ranks: Ints, values: int) -> Ints:
    """A bijection of 0..values-1, so that frequent ids do not lie side by side."""
    factor = 2_654_435_761 % values | 1
    while np.gcd(factor, values) != 1:
        factor += 2
    return np.asarray(ranks * factor % values, np.int64)


def draw(rng: np.random.Generator, n: int, values: int, distribution: str) -> Ints:
    """n ids of 0..values-1."""
    if distribution == "uniform":
        return np.asarray(rng.integers(0, values, n), np.int64)
    return scattered(zipf_ranks(rng, n, values), values)


def lookup(sizes: list[int], rows: int, distribution: str, seed: int) -> Lookup:
    """One batch of all features."""
    rng = np.random.default_rng(seed)
    ids, lengths = [], []
    for feature, size in enumerate(sizes):
        length = rng.poisson(IDS_PER_LIST, rows) if feature < LONG_FEATURES else np.ones(rows, np.int64)
        ids.append(draw(rng, int(length.sum()), size, distribution))
        lengths.append(length)
    offsets = np.zeros(len(sizes) * rows + 1, np.int64)
    np.cumsum(np.concatenate(lengths), out=offsets[1:])
    features = tuple(range(len(sizes)))
    return Lookup(features, torch.from_numpy(np.concatenate(ids)), torch.from_numpy(offsets), None, rows)
