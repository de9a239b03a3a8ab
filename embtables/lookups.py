"""From a KeyedJaggedTensor to a lookup: choose the features, encode ids to keys, turn pooling into weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torchrec.sparse.jagged_tensor import JaggedTensor, KeyedJaggedTensor

from embtables.errors import ConfigError
from embtables.ids import encode
from embtables.rows.protocol import Lookup
from embtables.tables import TableFeature


@dataclass(frozen=True, slots=True)
class Request:
    """A pooled lookup and how its weights came about, to carry gradients back to per-id weights.

    Attributes:
        lookup: keys of F features, and the factors of their rows.
        id_weights: (N_kjt,) the KJT's weights tensor, or None.
        id_positions: (N,) for each key its place in `id_weights`; None without weights.
        mean_factors: (N,) 1/L of each key's list, or None where no slot pools by mean.
    """

    lookup: Lookup
    id_weights: Tensor | None
    id_positions: Tensor | None
    mean_factors: Tensor | None

    def weight_gradient(self, of_keys: Tensor) -> Tensor:
        """Gradients of the keys' factors (N,) -> of the KJT's weights (N_kjt,)."""
        assert self.id_weights is not None
        assert self.id_positions is not None
        scaled = of_keys if self.mean_factors is None else of_keys * self.mean_factors
        return torch.zeros_like(self.id_weights).index_add_(0, self.id_positions, scaled.to(self.id_weights.dtype))


def pooled_request(slots: Sequence[TableFeature], features: KeyedJaggedTensor, *, weighted: bool) -> Request:
    """The pooled lookup of the slots' features. Mean pooling divides by the number of ids, weights or not.

    Raises:
        ConfigError: the batch lacks a feature, or weights that `weighted` promises.
        DataError: an id is refused by its encoder.
    """
    b = features.stride()
    positions = {name: i for i, name in enumerate(features.keys())}
    _refuse_missing(slots, positions)
    values = features.values().detach().numpy()
    lengths = features.lengths().numpy().reshape(len(positions), b)
    bounds = np.concatenate([[0], np.cumsum(lengths.sum(axis=1))])
    weights = features.weights_or_none() if weighted else None
    if weighted and weights is None:
        raise ConfigError("a weighted collection needs a KeyedJaggedTensor with weights")
    keys, counts, means, sources = [], [], [], []
    any_mean = any(slot.feature.pooling == "mean" for slot in slots)
    for slot in slots:
        f = positions[slot.feature.name]
        start, stop = int(bounds[f]), int(bounds[f + 1])
        ids = values[start:stop].astype(np.int64, copy=False)
        keys.append(encode(slot.feature.encoder, ids, slot.table.key_range, slot.feature.name))
        t = slot.keys_per_id
        counts.append(lengths[f] * t)
        if any_mean:
            each = 1.0 / np.maximum(lengths[f], 1) if slot.feature.pooling == "mean" else np.ones(b)
            means.append(np.repeat(each.astype(np.float32), counts[-1]))
        if weights is not None:
            sources.append(np.repeat(np.arange(start, stop), t))
    offsets = np.zeros(len(slots) * b + 1, np.int64)
    np.cumsum(np.concatenate(counts), out=offsets[1:])
    mean_factors = torch.from_numpy(np.concatenate(means)) if any_mean else None
    id_positions = torch.from_numpy(np.concatenate(sources)) if weights is not None else None
    factors = mean_factors
    if weights is not None:
        factors = weights.detach().float()[id_positions]
        factors = factors if mean_factors is None else factors * mean_factors
    lookup = Lookup(
        tuple(slot.number for slot in slots),
        torch.from_numpy(np.concatenate(keys)),
        torch.from_numpy(offsets),
        factors,
        b,
    )
    return Request(lookup, weights, id_positions, mean_factors)


def sequence_keys(slot: TableFeature, features: KeyedJaggedTensor) -> tuple[Tensor, JaggedTensor]:
    """Keys (n * T,) of one unpooled feature, and its part of the batch."""
    _refuse_missing([slot], {name: i for i, name in enumerate(features.keys())})
    jagged = features[slot.feature.name]
    ids = jagged.values().detach().numpy().astype(np.int64, copy=False)
    keys = encode(slot.feature.encoder, ids, slot.table.key_range, slot.feature.name)
    return torch.from_numpy(np.ascontiguousarray(keys)), jagged


def _refuse_missing(slots: Sequence[TableFeature], positions: dict[str, int]) -> None:
    for slot in slots:
        if slot.feature.name not in positions:
            raise ConfigError(
                f"is missing from the batch, which has: {', '.join(positions)}", feature=slot.feature.name
            )
