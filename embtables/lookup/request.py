"""From the ids of a batch to a lookup: choose the features, encode ids to keys, turn pooling into weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from embtables.arguments import as_floats, as_ids
from embtables.errors import ConfigError, DataError
from embtables.given import as_integer
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
    values = ids.values.numpy()
    lengths = ids.lengths.numpy().reshape(len(positions), b)
    bounds = np.concatenate([[0], np.cumsum(lengths.sum(axis=1))])
    weights = given_weights(ids.weights) if weighted else None
    keys, counts, means, sources = [], [], [], []
    any_mean = any(read.feature.pooling == "mean" or read.combine == "mean" for read in features)
    for read in features:
        f = positions[read.feature.name]
        start, stop = int(bounds[f]), int(bounds[f + 1])
        made = read.encoder.encode(values[start:stop])
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


def checked(ids: JaggedIds) -> JaggedIds:
    """The same batch with int64 ids and lengths, and weights of real numbers that keep their gradients.

    Raises:
        DataError: ids, lengths or weights are of a type that cannot be converted exactly; a length is negative, the
            lengths do not add up to the ids, or there are not as many weights as ids.
    """
    if not isinstance(ids, JaggedIds):
        raise DataError(f"a view needs JaggedIds, received a {type(ids).__name__}; JaggedIds.of(...) makes them")
    values, lengths = as_ids(ids.values, "values"), as_ids(ids.lengths, "lengths")
    num_rows = as_integer(ids.num_rows, "num_rows", least=0)
    if len(set(ids.keys)) < len(ids.keys):
        raise DataError(f"names a feature twice: {', '.join(ids.keys)}", argument="keys")
    if len(lengths) != len(ids.keys) * num_rows:
        needed = f"{len(ids.keys)} features of {num_rows:,} rows need {len(ids.keys) * num_rows:,}"
        raise DataError(f"has {len(lengths):,} values; {needed}", argument="lengths")
    check_lengths(lengths.numpy(), len(values))
    weights = None if ids.weights is None else _checked_weights(ids.weights, len(values))
    if values is ids.values and lengths is ids.lengths and weights is ids.weights:
        return ids
    return JaggedIds(tuple(ids.keys), values, lengths, num_rows, weights)


def check_lengths(lengths: npt.NDArray[np.int64], num_ids: int) -> None:
    """Raises DataError unless they are not negative and add up to the ids."""
    # Each is compared first: their sum may leave 64 bits and come back to what it should be.
    longest = int(lengths.view(np.uint64).max(initial=0))  # a negative one is large
    if longest > num_ids:
        place = int(np.argmax(lengths.view(np.uint64)))
        raise DataError(f"is {lengths[place]} at {place}, and there are {num_ids:,} ids", argument="lengths")
    if (total := int(lengths.sum())) != num_ids:
        raise DataError(f"add up to {total:,}, and there are {num_ids:,} ids", argument="lengths")


def _checked_weights(weights: Tensor, num_ids: int) -> Tensor:
    if not isinstance(weights, Tensor):
        return as_floats(weights, (num_ids,), "weights")
    if weights.dtype.is_complex or weights.layout != torch.strided or weights.device.type != "cpu":
        shown = f"{weights.dtype}, {weights.layout} on {weights.device}"
        raise DataError(f"is a tensor of {shown}; give dense real numbers on the CPU", argument="weights")
    if tuple(weights.shape) != (num_ids,):
        raise DataError(f"has shape {tuple(weights.shape)}, and there are {num_ids:,} ids", argument="weights")
    return weights


def given_weights(weights: Tensor | None) -> Tensor:
    """The per-id weights that a weighted view needs. Raises ConfigError where there are none."""
    if weights is None:
        raise ConfigError("a weighted view needs ids with weights, and the batch has none")
    return weights


def sequence_keys(read: TableFeature, ids: JaggedIds) -> tuple[Tensor, Jagged]:
    """Keys (n * T,) of one feature, for a lookup of single rows, and its part of the batch."""
    of_feature = ids[read.feature.name]
    return torch.from_numpy(read.encoder.encode(of_feature.values.numpy())), of_feature


def _refuse_missing(features: Sequence[TableFeature], positions: dict[str, int]) -> None:
    for read in features:
        if read.feature.name not in positions:
            raise ConfigError(
                f"is missing from the batch, which has: {', '.join(positions)}", feature=read.feature.name
            )
