"""Batches as TorchRec has them (KeyedJaggedTensor), and as the views take them (JaggedIds)."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

from embtables.arguments import as_ids
from embtables.errors import DataError
from embtables.inputs.batch import JaggedIds
from embtables.inputs.columns import ranges
from embtables.lookup.request import check_lengths

_DAMAGED = (AttributeError, TypeError, ValueError, RuntimeError, AssertionError, IndexError, KeyError)


def jagged_ids(features: KeyedJaggedTensor) -> JaggedIds:
    """The ids of a batch whose features all have B rows; they share its memory, and weights keep their gradients.

    Raises:
        DataError: it is no KeyedJaggedTensor, cannot be read, or has rows of its own for each feature (inverse
            indices, variable strides).
    """
    if not isinstance(features, KeyedJaggedTensor):
        raise DataError(f"a collection needs a KeyedJaggedTensor, received a {type(features).__name__}")
    if features.inverse_indices_or_none() is not None or _varies(features):
        raise DataError(
            "the KeyedJaggedTensor has inverse indices, or features with different numbers of rows, which have no "
            "sequences for B rows here: look up a batch with B rows of every feature"
        )
    return _read(features, features.stride)


def whole_batch(features: KeyedJaggedTensor) -> JaggedIds:
    """The same for pooling: where the batch has inverse indices, each feature's rows are repeated as they say, to B.

    Raises:
        DataError: as `jagged_ids`, but for inverse indices; those that are missing for a feature or name no row of it.
    """
    inverse = features.inverse_indices_or_none() if isinstance(features, KeyedJaggedTensor) else None
    if inverse is None:
        return jagged_ids(features)
    strides = _tried(features.stride_per_key) if _varies(features) else None
    given = _read(features, lambda: 0)
    if strides is None:
        strides = [len(given.lengths) // max(len(given.keys), 1)] * len(given.keys)
    rows = {name: as_ids(index, "inverse_indices", feature=name) for name, index in zip(*inverse, strict=False)}
    values, lengths = as_ids(given.values, "values"), as_ids(given.lengths, "lengths")
    check_lengths(lengths.numpy(), len(values))
    parts, places, start = [], [], 0
    for feature, own in zip(given.keys, torch.split(lengths, strides), strict=True):
        if feature not in rows:
            raise DataError("has no inverse indices, and other features of the batch have", feature=feature)
        index = rows[feature].numpy()
        if len(index) and not 0 <= int(index.min()) <= int(index.max()) < len(own):
            shown = f"{index.min()}..{index.max()}, and it has {len(own):,} rows"
            raise DataError(f"has inverse indices {shown}", feature=feature)
        counts = own.numpy()
        parts.append(counts[index])
        places.append(ranges((start + np.cumsum(counts) - counts)[index], parts[-1]))
        start += int(counts.sum())
    at = torch.from_numpy(np.concatenate(places)) if places else torch.empty(0, dtype=torch.int64)
    weights = None if given.weights is None else given.weights[at]
    full = torch.from_numpy(np.concatenate(parts)) if parts else torch.empty(0, dtype=torch.int64)
    return JaggedIds(given.keys, values[at], full, int(inverse[1].shape[1]), weights)


def keyed_jagged_tensor(ids: JaggedIds) -> KeyedJaggedTensor:
    """The same ids as TorchRec's type."""
    return KeyedJaggedTensor(list(ids.keys), ids.values, weights=ids.weights, lengths=ids.lengths, stride=ids.num_rows)


def _varies(features: KeyedJaggedTensor) -> bool:
    """Whether features have different numbers of rows."""
    return bool(features.variable_stride_per_key()) and len(set(_tried(features.stride_per_key))) > 1


def _read(features: KeyedJaggedTensor, num_rows: Any) -> JaggedIds:
    keys = tuple(_tried(features.keys))
    return JaggedIds(
        keys, _tried(features.values), _tried(features.lengths), _tried(num_rows), _tried(features.weights_or_none)
    )


def _tried(read: Any) -> Any:
    """What a KeyedJaggedTensor says of itself. Raises DataError where it was made of what does not go together."""
    try:
        return read()
    except _DAMAGED as error:
        reason = " ".join(str(error).split())[:200]
        raise DataError(f"the KeyedJaggedTensor cannot be read: {type(error).__name__} {reason}") from error
