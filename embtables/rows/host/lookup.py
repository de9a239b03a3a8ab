"""Lookups of training in the native row store: what is kept of each until its gradients come, and till the step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from embtables.errors import StateError
from embtables.native import _core
from embtables.rows.protocol import Segments

RowNumbers = npt.NDArray[np.uint32]
Counts = npt.NDArray[np.int32] | None
_MOST_OPEN = 64  # lookups whose backward may come


def as_numpy(tensor: Tensor) -> npt.NDArray[Any]:
    """A view of a tensor's memory, or of a contiguous copy if it is not contiguous."""
    return tensor.detach().contiguous().numpy()


@dataclass(frozen=True, slots=True, eq=False)
class Resolved:
    """A lookup's keys at their rows, L lists of `num_bags` bags, and how many changes had moved rows before. Features
    i, L + i, ... read list i."""

    features: npt.NDArray[np.int32]
    rows: RowNumbers
    offsets: npt.NDArray[np.int64]
    weights: npt.NDArray[np.float32] | None
    num_bags: int
    generation: int

    @property
    def num_lists(self) -> int:
        """L."""
        return (len(self.offsets) - 1) // self.num_bags if self.num_bags else len(self.features)

    def span(self, position: int) -> slice:
        """Where the keys of the feature at this position lie."""
        place = position % self.num_lists * self.num_bags
        return slice(int(self.offsets[place]), int(self.offsets[place + self.num_bags]))


class StepLookups:
    """The lookups of training since the last step, and the gradients that they kept.

    Args:
        see: marks a lookup's rows as seen. Rows of collisionless tables that were seen count as changed, also where no
            gradient came to them; rows with a gradient are marked by the update.
        marks: whether there are any such rows.
    """

    def __init__(self, see: Callable[[Resolved], None], *, marks: bool) -> None:
        self._see = see
        self._marks = marks
        self.pending: list[_core.Kept] = []
        self._looked_up: list[Resolved] = []  # whose gradients these are
        self._open: list[Resolved] = []
        self.generation = 0

    def begin(self, lookup: Resolved) -> None:
        """A lookup of training was made."""
        if self._marks:
            self._open.append(lookup)
            if len(self._open) > _MOST_OPEN:
                self._see(self._open.pop(0))

    def need_fresh(self, lookup: Resolved) -> None:
        """Raises StateError if the lookup's rows may have moved since."""
        if lookup.generation != self.generation:
            raise StateError("a step or advance lies between this lookup and its backward: its rows may be gone")

    def keep(self, lookup: Resolved, gradients: _core.Kept) -> None:
        """Keeps gradients of a lookup."""
        self.pending.append(gradients)
        if not self._looked_up or self._looked_up[-1] is not lookup:
            self._looked_up.append(lookup)

    def close(self, lookup: Resolved) -> None:
        """All of a lookup's gradients are kept."""
        self._open = [o for o in self._open if o is not lookup]

    def refuse_pending(self, what: str) -> None:
        """Raises StateError if gradients are waiting for their step."""
        if self.pending:
            raise StateError(f"row gradients are waiting for their step: {what}")

    def forget(self) -> None:
        """The kept gradients were used, or are not to be."""
        self.pending.clear()
        self._looked_up.clear()

    def see_open(self) -> None:
        """Marks the rows of lookups whose backward did not come; it does not count any more."""
        for lookup in self._open:
            self._see(lookup)
        self._open.clear()

    def see_all(self) -> None:
        """Marks the rows of all lookups so far."""
        for lookup in self._looked_up:
            self._see(lookup)
        self.see_open()


class HostPooledLookup:
    """See PooledLookup."""

    def __init__(self, store: _core.Store, step: StepLookups, lookup: Resolved, dims: Sequence[int]) -> None:
        self._store, self._step, self._lookup, self._dims = store, step, lookup, dims

    def add_gradient(self, gradient: Tensor, *, of_weights: bool) -> Tensor | None:
        """See PooledLookup."""
        c = self._lookup
        self._step.need_fresh(c)
        values = as_numpy(gradient.detach().float())
        self._step.keep(c, (c.features, c.rows, c.offsets, c.weights, c.num_bags, values))
        self._step.close(c)
        if not of_weights:
            return None
        found, column = [], 0
        for start in range(0, len(c.features), c.num_lists):
            own = slice(start, start + c.num_lists)
            features, end = c.features[own], column + sum(self._dims[own])
            out, of_list = torch.empty(len(c.rows)), np.ascontiguousarray(values[:, column:end])
            self._store.dots(features, c.rows, c.offsets, c.num_bags, of_list, torch.get_num_threads(), out.numpy())
            found.append(out)
            column = end
        return found[0] if len(found) == 1 else torch.stack(found).sum(dim=0)


class HostRowsLookup:
    """See RowsLookup. Each feature's keys are one bag of the lookup."""

    def __init__(self, step: StepLookups, lookup: Resolved) -> None:
        self._step, self._lookup = step, lookup

    def add_gradients(self, gradients: Sequence[Tensor | None]) -> None:
        """See RowsLookup. Every key is a bag of its own."""
        c = self._lookup
        self._step.need_fresh(c)
        for feature, gradient, (start, stop) in zip(c.features, gradients, pairwise(c.offsets), strict=True):
            if gradient is not None:
                values, n = as_numpy(gradient.detach().float()), stop - start
                one_each = np.arange(n + 1)
                of = np.array([feature], np.int32)
                self._step.keep(c, (of, c.rows[start:stop], one_each, None, int(n), values))
        if all(g is not None for g in gradients):
            self._step.close(c)


class HostOwnedRows:
    """See OwnedRows. All keys of a feature are one bag of the lookup."""

    def __init__(self, store: _core.Store, step: StepLookups, lookup: Resolved, segments: Segments) -> None:
        self._store, self._step, self._lookup, self._segments = store, step, lookup, segments

    def rows_into(self, message: Tensor) -> None:
        """See OwnedRows."""
        c, of = self._lookup, self._segments
        self._step.need_fresh(c)
        self._store.gather(c.features, c.rows, of.bounds, of.places, torch.get_num_threads(), message.numpy())


class HostOwnedLookup(HostOwnedRows):
    """See OwnedLookup.

    Args:
        counts: how often each key occurred.
        grows: (F,) whether each feature's table is collisionless.
    """

    def __init__(
        self,
        store: _core.Store,
        step: StepLookups,
        lookup: Resolved,
        segments: Segments,
        counts: Counts,
        grows: Sequence[bool],
    ) -> None:
        super().__init__(store, step, lookup, segments)
        self._counts, self._grows = counts, grows

    def add_message(self, message: Tensor, used: npt.NDArray[np.bool_]) -> None:
        """See OwnedLookup."""
        c, of = self._lookup, self._segments
        self._step.need_fresh(c)
        if used.any():
            places = np.where(used, of.places, -1)
            self._step.keep(c, (c.features, c.rows, of.bounds, places, message.numpy(), self._counts))
        if used.all():
            self._step.close(c)

    def cold_keys(self) -> Tensor:
        """See OwnedLookup."""
        c = self._lookup
        self._step.need_fresh(c)
        found = c.rows == 0
        for grows, (start, stop) in zip(self._grows, pairwise(c.offsets), strict=True):
            found[start:stop] &= grows
        return torch.from_numpy(found)
