"""What goes when a table has too many rows or waiting keys: the least recently seen, ties by the mix of their keys.

A table's keys may lie in several stores, a part in each. So that all drop what one store of all keys would drop, ages
are counted in bins first; only the keys of the bin in which the limit falls are listed one by one:

    how many in each bin, over all parts -> the bin where evictions end -> its keys, of all parts -> the last that goes

embtables/native/store/collisionless.cpp does the same for a table that lies in one store.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from embtables.schema import CollisionlessTable, MinCount

NUM_AGE_BINS = 64 * 27


def age_bin(age: int) -> int:
    """The bin of an age, 0..2^32-1: exact below 128, then 64 bins to each doubling; never falling with the age."""
    bits = age.bit_length()
    return age if bits <= 7 else (bits - 6) * 64 + (age >> (bits - 7)) - 64


def limits_of(table: CollisionlessTable) -> tuple[int | None, int]:
    """How many rows and how many waiting keys it may hold at the end of a step; None: any number."""
    return table.max_rows, table.admission.max_waiting if isinstance(table.admission, MinCount) else 0


def oldest_bin(bins: Tensor, most: int) -> tuple[int, int] | None:
    """Where evictions end that bring the number alive down to a thirty-second below `most`.

    Args:
        bins: (NUM_AGE_BINS,) how many are alive, by bin of age.

    Returns:
        The bin, of which some may stay while all in older bins go, and how many of it go, at least one; None if no
        more than `most` are alive.
    """
    alive = int(bins.sum())
    if alive <= most:
        return None
    surplus = alive - (most - most // 32)
    from_oldest = bins.flip(0).cumsum(0)
    place = int(torch.searchsorted(from_oldest, surplus))
    older = int(from_oldest[place - 1]) if place else 0
    return len(bins) - 1 - place, surplus - older


class Held(Protocol):
    """The rows of a table, or its waiting keys, over all stores that have parts of it. See PartStore."""

    def number(self) -> int:
        """How many there are; those past their ttl may count too."""

    def age_bins(self) -> Tensor:
        """How many lie in each bin of age, (NUM_AGE_BINS,) int64."""

    def of_age(self, chosen: int) -> tuple[Tensor, Tensor]:
        """When those in a bin were seen, and the mixes of their keys; in any order."""

    def evict(self, chosen: int, seen: int, mix: int) -> None:
        """Evicts those in older bins, and of that bin those up to (seen, mix)."""


def enforce(held: Held, most: int) -> None:
    """Evicts what is too much. All that decides is the same at every part, so that all take the same way."""
    if held.number() <= most or (found := oldest_bin(held.age_bins(), most)) is None:
        return
    chosen, count = found
    seen, mixes = (part.numpy() for part in held.of_age(chosen))
    last = np.lexsort((mixes.view(np.uint64), seen))[count - 1]
    held.evict(chosen, int(seen[last]), int(mixes[last]))
