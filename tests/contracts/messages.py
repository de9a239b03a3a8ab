"""Lookups as an owner gets them: what several ranks ask for, with its rows in a message."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from embtables.rows.protocol import OwnedLookup, PartStore, Segments
from embtables.rows.stored_table import StoredTable


def look_up(
    store: PartStore,
    stored: Sequence[StoredTable],
    slot_tables: Sequence[int],
    keys: Sequence[Tensor],
    counts: Sequence[Tensor] | None,
    *,
    seed: int,
    gradients: Sequence[Tensor] | None = None,
) -> tuple[list[Tensor], OwnedLookup]:
    """Rows of each feature's keys, which up to four ranks ask for in training, and the lookup; keeps the
    gradients of those rows. Messages hold no number outside the places of their rows.
    """
    rng = np.random.default_rng(seed)
    ranks = int(rng.integers(1, 5))
    sizes = np.stack([np.diff([0, *np.sort(rng.integers(0, len(k) + 1, ranks - 1)), len(k)]) for k in keys])
    dims = np.array([stored[table].config.dim for table in slot_tables])
    ends = np.cumsum((sizes * dims[:, None]).T + 1).reshape(ranks, -1).T  # rank after rank, a gap before each segment
    places = (ends - sizes * dims[:, None]).reshape(-1)
    segments = Segments(tuple(range(len(keys))), np.concatenate([[0], np.cumsum(sizes)]), places)
    often = None if counts is None else torch.cat(list(counts))
    kept = store.train_owned(segments, torch.cat(list(keys)), often)
    message = torch.full((int(ends.max()),), torch.nan)
    kept.rows_into(message)
    within = sum(map(Tensor.numel, _parts(message, segments, dims)))
    assert int(message.isnan().sum()) == len(message) - within
    if gradients is not None:
        given = torch.full_like(message, torch.nan)
        by_rank = [part for each, of in zip(gradients, sizes.tolist(), strict=True) for part in torch.split(each, of)]
        for part, of in zip(_parts(given, segments, dims), by_rank, strict=True):
            part.copy_(of)
        kept.add_message(given, np.ones(len(places), np.bool_))
    parts = _parts(message, segments, dims)
    return [torch.cat(parts[n * ranks : (n + 1) * ranks]) for n in range(len(keys))], kept


def _parts(message: Tensor, segments: Segments, dims: npt.NDArray[np.int64]) -> list[Tensor]:
    """The rows (n, D) of each segment, where they lie."""
    found = []
    for feature, keys, place in segments.each():
        n, dim = keys.stop - keys.start, int(dims[feature])
        found.append(message[place : place + n * dim].view(n, dim))
    return found
