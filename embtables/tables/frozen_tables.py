"""Lookups of training where some tables are frozen (`trainable: false`): their rows are read as inference reads them.

A lookup is parted by its features. Those of frozen tables are read by the row store's reading methods, so that no row
store counts, admits, marks or updates anything for them; per-id weights get their gradients all the same, from rows
that the forward kept: where several ranks hold the tables, a backward asks nothing of the others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from embtables.rows.duplicates import bag_numbers
from embtables.rows.exclusive import StoreLock, exclusive
from embtables.rows.protocol import Lookup, PooledLookup, RowReader, RowsLookup, RowTrainer


@dataclass(frozen=True, slots=True, eq=False)
class _PooledLookup:
    """See PooledLookup.

    Attributes:
        dims: D of each feature of the lookup.
        learning: what takes the gradients of the features that learn; None where none does.
        frozen_rows: of the others, by position, where weights need gradients: the rows (n, D) of their keys.
    """

    lookup: Lookup
    dims: Sequence[int]
    learns: tuple[bool, ...]
    learning: PooledLookup | None
    frozen_rows: Mapping[int, Tensor]

    def add_gradient(self, gradient: Tensor, *, of_weights: bool) -> Tensor | None:
        """See PooledLookup."""
        lookup, by_feature = self.lookup, torch.split(gradient, list(self.dims), dim=1)
        of_learning = None
        if self.learning is not None:
            own = torch.cat([g for g, learning in zip(by_feature, self.learns, strict=True) if learning], dim=1)
            of_learning = self.learning.add_gradient(own, of_weights=of_weights)
        if not of_weights:
            return None
        found, start = [], 0
        for position, learning in enumerate(self.learns):
            keys = len(_keys(lookup, position))
            if learning:
                assert of_learning is not None
                found.append(of_learning[start : start + keys])
                start += keys
            else:
                # Of each key its row times the gradient (D,) of its bag.
                bags = bag_numbers(lookup.offsets[position * lookup.num_rows : (position + 1) * lookup.num_rows + 1])
                found.append(_row_sums(self.frozen_rows[position] * by_feature[position].float()[bags]))
        return torch.cat(found)


@dataclass(frozen=True, slots=True, eq=False)
class _RowsLookup:
    """See RowsLookup."""

    learns: tuple[bool, ...]
    learning: RowsLookup | None

    def add_gradients(self, gradients: Sequence[Tensor | None]) -> None:
        """See RowsLookup."""
        if self.learning is not None:
            self.learning.add_gradients([g for g, learning in zip(gradients, self.learns, strict=True) if learning])


@dataclass(frozen=True, slots=True, eq=False)
class _ExclusivePooled:
    """See PooledLookup."""

    lock: StoreLock
    lookup: PooledLookup
    is_repeated: bool  # its keys stand twice

    @exclusive
    def add_gradient(self, gradient: Tensor, *, of_weights: bool) -> Tensor | None:
        """See PooledLookup."""
        found = self.lookup.add_gradient(gradient, of_weights=of_weights)
        return found.view(2, -1).sum(dim=0) if self.is_repeated and found is not None else found


@dataclass(frozen=True, slots=True, eq=False)
class _ExclusiveRows:
    """See RowsLookup."""

    lock: StoreLock
    lookup: RowsLookup

    @exclusive
    def add_gradients(self, gradients: Sequence[Tensor | None]) -> None:
        """See RowsLookup."""
        self.lookup.add_gradients(gradients)


class Lookups:
    """What the views look up in a row store, with the features of frozen tables kept out of training.

    Args:
        reader, trainer: the row store's two ways to look up.
        dims: D of each feature's table.
        frozen: the features of frozen tables, by number.
        lock: of the row store; each lookup and each backward holds it.
        takes_beside: the row store looks up features `beside` others (Ability.BESIDE).
    """

    def __init__(
        self,
        reader: RowReader,
        trainer: RowTrainer,
        dims: Sequence[int],
        frozen: Sequence[int],
        lock: StoreLock,
        *,
        takes_beside: bool,
    ) -> None:
        self.lock = lock
        self._reader, self._trainer = reader, trainer
        self._dims = tuple(dims)
        self._frozen = frozenset(frozen)
        self._takes_beside = takes_beside

    @exclusive
    def pooled(self, lookup: Lookup) -> Tensor:
        """See RowReader."""
        return self._reader.pooled(lookup if self._takes_beside else lookup.repeated())

    @exclusive
    def gather(self, features: Sequence[int], keys: Sequence[Tensor]) -> list[Tensor]:
        """See RowReader."""
        return self._reader.gather(features, keys)

    @exclusive
    def train_pooled(self, lookup: Lookup, *, of_weights: bool) -> tuple[Tensor, PooledLookup]:
        """See RowTrainer; `of_weights`: the backward may ask for their gradients."""
        is_repeated = bool(lookup.beside) and not (self._takes_beside and self._frozen.isdisjoint(lookup.features))
        if is_repeated:
            lookup = lookup.repeated()
        learns, frozen = self._learns(lookup.features)
        if not frozen:
            out, whole = self._trainer.train_pooled(lookup)
            return out, _ExclusivePooled(self.lock, whole, is_repeated)
        learning: PooledLookup | None = None
        columns: dict[int, Tensor] = {}
        if own := [p for p, learn in enumerate(learns) if learn]:
            out, learning = self._trainer.train_pooled(_part(lookup, own))
            columns |= self._columns(lookup, own, out)
        columns |= self._columns(lookup, frozen, self._reader.pooled(_part(lookup, frozen)))
        frozen_rows: dict[int, Tensor] = {}
        if of_weights:
            rows = self._reader.gather([lookup.features[p] for p in frozen], [_keys(lookup, p) for p in frozen])
            frozen_rows = dict(zip(frozen, rows, strict=True))
        dims = [self._dims[feature] for feature in lookup.features]
        out = torch.cat([columns[p] for p in range(len(learns))], dim=1)
        whole = _PooledLookup(lookup, dims, learns, learning, frozen_rows)
        return out, _ExclusivePooled(self.lock, whole, is_repeated)

    @exclusive
    def train_rows(self, features: Sequence[int], keys: Sequence[Tensor]) -> tuple[list[Tensor], RowsLookup]:
        """See RowTrainer."""
        learns, frozen = self._learns(features)
        if not frozen:
            found, whole = self._trainer.train_rows(features, keys)
            return found, _ExclusiveRows(self.lock, whole)
        learning: RowsLookup | None = None
        rows: dict[int, Tensor] = {}
        if own := [p for p, learn in enumerate(learns) if learn]:
            found, learning = self._trainer.train_rows([features[p] for p in own], [keys[p] for p in own])
            rows |= dict(zip(own, found, strict=True))
        read = self._reader.gather([features[p] for p in frozen], [keys[p] for p in frozen])
        rows |= dict(zip(frozen, read, strict=True))
        return [rows[p] for p in range(len(learns))], _ExclusiveRows(self.lock, _RowsLookup(learns, learning))

    def _learns(self, features: Sequence[int]) -> tuple[tuple[bool, ...], list[int]]:
        """Which features of a lookup learn, and the positions of those that do not."""
        learns = tuple(feature not in self._frozen for feature in features)
        return learns, [p for p, learn in enumerate(learns) if not learn]

    def _columns(self, lookup: Lookup, positions: Sequence[int], out: Tensor) -> dict[int, Tensor]:
        """A pooled output's columns, by the positions of their features."""
        widths = [self._dims[lookup.features[p]] for p in positions]
        return dict(zip(positions, torch.split(out, widths, dim=1), strict=True))


def _keys(lookup: Lookup, position: int) -> Tensor:
    """The keys of the feature at a position."""
    b = lookup.num_rows
    return lookup.keys[int(lookup.offsets[position * b]) : int(lookup.offsets[(position + 1) * b])]


def _part(lookup: Lookup, positions: Sequence[int]) -> Lookup:
    """The features at some positions of a lookup, as a lookup."""
    b = lookup.num_rows
    lengths = lookup.offsets.diff()
    offsets = torch.zeros(len(positions) * b + 1, dtype=torch.int64)
    torch.cumsum(torch.cat([lengths[p * b : (p + 1) * b] for p in positions]), 0, out=offsets[1:])
    spans = [slice(int(lookup.offsets[p * b]), int(lookup.offsets[(p + 1) * b])) for p in positions]
    return replace(
        lookup,
        features=tuple(lookup.features[p] for p in positions),
        keys=torch.cat([lookup.keys[span] for span in spans]),
        offsets=offsets,
        weights=None if lookup.weights is None else torch.cat([lookup.weights[span] for span in spans]),
    )


def _row_sums(values: Tensor) -> Tensor:
    """(n, D) -> (n,), by halves: additions of whole columns have one order on every instruction set."""
    while values.shape[1] > 1:
        half = values.shape[1] // 2
        rest = values[:, 2 * half :]
        values = values[:, :half] + values[:, half : 2 * half]
        values = torch.cat([values, rest], dim=1) if rest.shape[1] else values
    return values[:, 0]
