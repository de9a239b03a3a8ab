"""Weight decay that reaches every row in every step, without a pass over the rows: a scale for each table.

    a weight = scale x what is stored      a step: scale *= 1 - learning rate * rate
    read: scale x stored                   update, fresh row: stored = new / scale, at the scale of that moment

A row that no step touched for n steps is so decayed n times when it is next read or updated. Versions hold what is
stored, and the scale beside it (docs/format.md), so that a run goes on with the same bits. Before a scale is so small
that what is stored may be beyond float32, a pass over all rows makes it 1: at 0.001 per step one in 22,000 steps.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from embtables.native import _core
from embtables.rows.content import LEAST_SCALE
from embtables.rows.optimizers import dense_factor
from embtables.rows.stored_table import StoredTable
from embtables.schema import Constant, Initializer, Normal, Uniform


class LazyDecay:
    """The scales of a native store's tables.

    Args:
        tables: all of the store's, by number.
    """

    def __init__(self, store: _core.Store, tables: Sequence[StoredTable]) -> None:
        self._store = store
        self._configs = [table.config for table in tables]
        self._least = {
            number: _least_scale(config.initializer)
            for number, config in enumerate(self._configs)
            if config.trainable and config.optimizer.dense_decay > 0.0
        }
        self._at_cuts: dict[int, dict[int, float]] = {}  # by cut; of a table that was folded since then, nothing

    def step(self, rate_factor: float) -> None:
        """All rows of tables whose decay is dense decay once, at `rate_factor` times the learning rate.

        Raises:
            ConfigError: nothing of a row would stay; no table has decayed.
        """
        factors = {table: dense_factor(self._configs[table].optimizer, rate_factor) for table in self._least}
        for table, factor in factors.items():
            scale = self._store.scale(table) * factor
            self._store.set_scale(table, scale)
            if scale < self._least[table]:
                self.fold(table)

    def fold(self, table: int) -> None:
        """Makes the scale 1: what is stored are the weights. Where it was not, all rows have changed."""
        if self._store.scale(table) == 1.0:
            return
        self._store.fold_scale(table, torch.get_num_threads())
        for scales in self._at_cuts.values():
            scales.pop(table, None)

    def note_cut(self, cut: int) -> None:
        """A cut was drawn."""
        if self._least:
            self._at_cuts[cut] = {table: self._store.scale(table) for table in self._least}

    def forget(self, through: int) -> None:
        """Nobody will ask for what happened since a cut before `through`."""
        self._at_cuts = {cut: scales for cut, scales in self._at_cuts.items() if cut >= through}

    def since(self, table: int, cut: int) -> float:
        """What a row that was not touched since a cut has been multiplied by."""
        then = self._at_cuts.get(cut, {}).get(table)
        return 1.0 if then is None else self._store.scale(table) / then


def _least_scale(initializer: Initializer) -> float:
    """The least scale at which a fresh row, divided by it, is well within float32."""
    largest = 0.0
    if isinstance(initializer, Normal):
        largest = 4.0 * initializer.std
    elif isinstance(initializer, Uniform):
        largest = max(abs(initializer.low), abs(initializer.high))
    elif isinstance(initializer, Constant):
        largest = abs(initializer.value)
    return min(1.0, max(LEAST_SCALE, 2.0 * largest / float(np.finfo(np.float32).max)))
