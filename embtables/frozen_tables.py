"""Lookups of training where some tables are frozen (`trainable: false`): their rows are read as inference reads them.

A lookup is parted by its slots. Those of frozen tables are read without `keep`, so that no row store counts, admits,
marks or updates anything for them; per-id weights get their gradients all the same, from rows that the forward kept:
where several ranks hold the tables, a backward asks nothing of the others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from embtables.rows.duplicates import bag_numbers
from embtables.rows.protocol import Lookup, RowStore


@dataclass(frozen=True, slots=True)
class _Pooled:
    """A lookup with frozen slots: which positions learn, and the row store's context of those; of the others, where
    weights need gradients, the rows (n, D) of their keys."""

    lookup: Lookup
    learns: tuple[bool, ...]
    context: object
    frozen_rows: Mapping[int, Tensor]


@dataclass(frozen=True, slots=True)
class _Gathered:
    learns: tuple[bool, ...]
    context: object


class Lookups:
    """What the views look up in a row store: its four methods, with frozen slots kept out of training.

    Args:
        rows: the row store.
        dims: D of each slot's table.
        frozen: the slots of frozen tables.
    """

    def __init__(self, rows: RowStore, dims: Sequence[int], frozen: Sequence[int]) -> None:
        self._rows = rows
        self._dims = tuple(dims)
        self._frozen = frozenset(frozen)

    def _learns(self, slots: Sequence[int]) -> tuple[bool, ...]:
        return tuple(slot not in self._frozen for slot in slots)

    def pooled(self, lookup: Lookup, *, keep: bool, of_weights: bool) -> tuple[Tensor, object]:
        """See RowStore; `of_weights`: the backward may ask for their gradients."""
        learns = self._learns(lookup.slots)
        if not keep or all(learns):
            return self._rows.pooled(lookup, keep=keep)
        context: object = None
        columns: dict[int, Tensor] = {}
        for training, positions in _parted(learns):
            out, found = self._rows.pooled(_part(lookup, positions), keep=training)
            context = found if training else context
            widths = [self._dims[lookup.slots[p]] for p in positions]
            columns |= dict(zip(positions, torch.split(out, widths, dim=1), strict=True))
        frozen_rows: dict[int, Tensor] = {}
        if of_weights:
            frozen = [p for p, learning in enumerate(learns) if not learning]
            of = [_keys(lookup, p) for p in frozen]
            rows, _ = self._rows.gather([lookup.slots[p] for p in frozen], of, keep=False)
            frozen_rows = dict(zip(frozen, rows, strict=True))
        out = torch.cat([columns[p] for p in range(len(learns))], dim=1)
        return out, _Pooled(lookup, learns, context, frozen_rows)

    def add_gradient(self, context: object, gradient: Tensor, *, of_weights: bool) -> Tensor | None:
        """See RowStore."""
        if not isinstance(context, _Pooled):
            return self._rows.add_gradient(context, gradient, of_weights=of_weights)
        lookup = context.lookup
        by_slot = torch.split(gradient, [self._dims[slot] for slot in lookup.slots], dim=1)
        positions = [p for p, learning in enumerate(context.learns) if learning]
        of_learning = None
        if positions:
            own = torch.cat([by_slot[p] for p in positions], dim=1)
            of_learning = self._rows.add_gradient(context.context, own, of_weights=of_weights)
        if not of_weights:
            return None
        found, start = [], 0
        for position, learning in enumerate(context.learns):
            keys = len(_keys(lookup, position))
            if learning:
                assert of_learning is not None
                found.append(of_learning[start : start + keys])
                start += keys
            else:
                # Of each key its row times the gradient (D,) of its bag.
                bags = bag_numbers(lookup.offsets[position * lookup.num_rows : (position + 1) * lookup.num_rows + 1])
                found.append(_row_sums(context.frozen_rows[position] * by_slot[position].float()[bags]))
        return torch.cat(found)

    def gather(self, slots: Sequence[int], keys: Sequence[Tensor], *, keep: bool) -> tuple[list[Tensor], object]:
        """See RowStore."""
        learns = self._learns(slots)
        if not keep or all(learns):
            return self._rows.gather(slots, keys, keep=keep)
        context: object = None
        rows: dict[int, Tensor] = {}
        for training, positions in _parted(learns):
            parts, found = self._rows.gather([slots[p] for p in positions], [keys[p] for p in positions], keep=training)
            context = found if training else context
            rows |= dict(zip(positions, parts, strict=True))
        return [rows[p] for p in range(len(learns))], _Gathered(learns, context)

    def add_row_gradients(self, context: object, gradients: Sequence[Tensor | None]) -> None:
        """See RowStore."""
        if not isinstance(context, _Gathered):
            self._rows.add_row_gradients(context, gradients)
        elif any(context.learns):
            own = [g for g, learning in zip(gradients, context.learns, strict=True) if learning]
            self._rows.add_row_gradients(context.context, own)


def _parted(learns: Sequence[bool]) -> list[tuple[bool, list[int]]]:
    """The positions that learn, then those that do not; what there is none of is left out."""
    parts = [(training, [p for p, own in enumerate(learns) if own is training]) for training in (True, False)]
    return [(training, positions) for training, positions in parts if positions]


def _keys(lookup: Lookup, position: int) -> Tensor:
    """The keys of the slot at a position."""
    b = lookup.num_rows
    return lookup.keys[int(lookup.offsets[position * b]) : int(lookup.offsets[(position + 1) * b])]


def _part(lookup: Lookup, positions: Sequence[int]) -> Lookup:
    """The slots at some positions of a lookup, as a lookup."""
    b = lookup.num_rows
    lengths = lookup.offsets.diff()
    offsets = torch.zeros(len(positions) * b + 1, dtype=torch.int64)
    torch.cumsum(torch.cat([lengths[p * b : (p + 1) * b] for p in positions]), 0, out=offsets[1:])
    spans = [slice(int(lookup.offsets[p * b]), int(lookup.offsets[(p + 1) * b])) for p in positions]
    return replace(
        lookup,
        slots=tuple(lookup.slots[p] for p in positions),
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
