"""From the ids of a batch to a lookup: choose the features, encode ids to keys, turn pooling into weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from embtables.errors import ConfigError
from embtables.inputs.batch import Jagged, JaggedIds
from embtables.rows.protocol import Lookup
from embtables.tables.table_feature import TableFeature


@dataclass(frozen=True, slots=True)
class Request:
    """A pooled lookup and how its weights came about, to carry gradients back to per-id weights.

    Attributes:
        lookup: keys of F features, and the factors of their rows.
        id_weights: (N_ids,) the ids' weights tensor, or None.
        id_positions: (N,) for each key its place in `id_weights`; None without weights.
        mean_factors: (N,) 1/L of each key's list, or None where no feature pools by mean.
    """

    lookup: Lookup
    id_weights: Tensor | None
    id_positions: Tensor | None
    mean_factors: Tensor | None

    def weight_gradient(self, of_keys: Tensor) -> Tensor:
        """Gradients of the keys' factors (N,) -> of the ids' weights (N_ids,)."""
        assert self.id_weights is not None
        assert self.id_positions is not None
        scaled = of_keys if self.mean_factors is None else of_keys * self.mean_factors
        return torch.zeros_like(self.id_weights).index_add_(0, self.id_positions, scaled.to(self.id_weights.dtype))


def pooled_request(
    features: Sequence[TableFeature], ids: JaggedIds, *, weighted: bool, beside: Sequence[TableFeature] = ()
) -> Request:
    """The pooled lookup of features. Mean pooling divides by the number of ids, weights or not.

    Args:
        beside: nothing, or for each of the features the one of a table that shares its table's keys.

    Raises:
        ConfigError: the batch lacks a feature, or weights that `weighted` promises.
        DataError: an id is refused by its encoder.
    """
    b = ids.num_rows
    positions = {name: i for i, name in enumerate(ids.keys)}
    _refuse_missing(features, positions)
    values = ids.values.detach().numpy()
    lengths = ids.lengths.numpy().reshape(len(positions), b)
    bounds = np.concatenate([[0], np.cumsum(lengths.sum(axis=1))])
    weights = given_weights(ids.weights) if weighted else None
    keys, counts, means, sources = [], [], [], []
    any_mean = any(read.feature.pooling == "mean" or read.combine == "mean" for read in features)
    for read in features:
        f = positions[read.feature.name]
        start, stop = int(bounds[f]), int(bounds[f + 1])
        made = read.encoder.encode(values[start:stop].astype(np.int64, copy=False))
        # Concatenated, the T keys of an id are bags of T features, one block of keys each; else they lie in one bag.
        blocks, together = read.blocks, read.keys_per_id // read.blocks
        keys.append(made.reshape(-1, blocks).T.ravel() if blocks > 1 else made)
        counts += [lengths[f] * together] * blocks
        if any_mean:
            each = 1.0 / np.maximum(lengths[f], 1) if read.feature.pooling == "mean" else np.ones(b)
            each = each / read.keys_per_id if read.combine == "mean" else each
            means += [np.repeat(each.astype(np.float32), counts[-1])] * blocks
        if weights is not None:
            sources += [np.repeat(np.arange(start, stop), together)] * blocks
    offsets = np.zeros(len(counts) * b + 1, np.int64)
    np.cumsum(np.concatenate(counts), out=offsets[1:])
    mean_factors = torch.from_numpy(np.concatenate(means)) if any_mean else None
    id_positions = torch.from_numpy(np.concatenate(sources)) if weights is not None else None
    factors = mean_factors
    if weights is not None:
        factors = weights.detach().float()[id_positions]
        factors = factors if mean_factors is None else factors * mean_factors
    pairs = zip(features, beside, strict=True) if beside else ()
    lookup = Lookup(
        tuple(read.number + block for read in features for block in range(read.blocks)),
        torch.from_numpy(np.concatenate(keys)),
        torch.from_numpy(offsets),
        factors,
        b,
        tuple(other.number for read, other in pairs for _ in range(read.blocks)),
    )
    return Request(lookup, weights, id_positions, mean_factors)


def given_weights(weights: Tensor | None) -> Tensor:
    """The per-id weights that a weighted view needs. Raises ConfigError where there are none."""
    if weights is None:
        raise ConfigError("a weighted view needs ids with weights, and the batch has none")
    return weights


def sequence_keys(read: TableFeature, ids: JaggedIds) -> tuple[Tensor, Jagged]:
    """Keys (n * T,) of one feature, for a lookup of single rows, and its part of the batch."""
    of_feature = ids[read.feature.name]
    own = of_feature.values.detach().numpy().astype(np.int64, copy=False)
    return torch.from_numpy(read.encoder.encode(own)), of_feature


def _refuse_missing(features: Sequence[TableFeature], positions: dict[str, int]) -> None:
    for read in features:
        if read.feature.name not in positions:
            raise ConfigError(
                f"is missing from the batch, which has: {', '.join(positions)}", feature=read.feature.name
            )
