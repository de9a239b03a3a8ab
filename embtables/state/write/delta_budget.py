"""`DeltaBudget`: which rows go into a delta that may not have all; those that moved most for each byte go first.

    rows that changed since a version that had all -> how far each is from what servers answer -> rows for the bytes

A row that is held back is a candidate of the next delta: how far it has moved is measured from what servers have, so
small moves add up. For this it holds what servers hold: the weights of all rows, in the memory that a server takes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from embtables.errors import ConfigError
from embtables.rows.content import TableContent
from embtables.rows.optimizers import WEIGHT
from embtables.rows.served.rows import ServedRows
from embtables.rows.stored_table import StoredTable
from embtables.schema import CollisionlessTable
from embtables.state.format.weight_dtype import WeightDtype, stored_dtype, stored_width

_KEY_BYTES, _SEEN_BYTES = 8, 4

Contents = dict[str, TableContent]


@dataclass(frozen=True, slots=True)
class Chosen:
    """What goes, and how many rows do not, of all tables."""

    contents: Contents
    held_back: int


class DeltaBudget:
    """Chooses the rows of deltas of one chain.

    Args:
        stored: the tables, all of them whole.
        max_bytes: of keys, weights and last sights in a delta's files. Cold rows, dense weights and tombstones, which
            go whole, are not counted.
        dtype: how the files have weights.

    Raises:
        ConfigError: all rows of a table decay in each step: those that are held back would be wrong by that.
    """

    def __init__(self, stored: Sequence[StoredTable], max_bytes: int, dtype: WeightDtype) -> None:
        self._stored = {table.config.name: (number, table) for number, table in enumerate(stored)}
        for name, (_, table) in self._stored.items():
            if table.config.optimizer.dense_decay > 0.0:
                raise ConfigError("max_delta_bytes does not go with weight_decay: {kind: dense}", table=name)
        self._max_bytes = max_bytes
        self._dtype = dtype
        self._tables = list(stored)
        self._served = ServedRows(self._tables, [])

    def choose(self, contents: Contents) -> Chosen:
        """The rows of a delta.

        Args:
            contents: what changed since a version that had all; nothing streamed.
        """
        gains, costs = {}, {}
        for name, content in contents.items():
            of_row = self._row_bytes(name)
            gains[name] = self._moved(name, content) / of_row
            costs[name] = np.full(len(content.keys), of_row, np.int64)
        gain = np.concatenate([*gains.values()])
        # Equal gains go in the order of the files, so that equal states give equal deltas.
        order = np.argsort(-gain, kind="stable")
        order = order[gain[order] >= 0.0]
        bytes_ = np.concatenate([*costs.values()])[order]
        is_chosen = np.zeros(len(gain), np.bool_)
        is_chosen[order[np.cumsum(bytes_) <= self._max_bytes]] = True
        chosen, first = {}, 0
        for name, content in contents.items():
            end = first + len(content.keys)
            candidates = int((gains[name] >= 0.0).sum())
            chosen[name] = _only(content, is_chosen[first:end], candidates)
            first = end
        return Chosen(chosen, len(order) - int(is_chosen.sum()))

    def took(self, contents: Contents, *, is_snapshot: bool) -> None:
        """A version with these contents is on the disk: servers hold them now."""
        if is_snapshot:
            self._served = ServedRows(self._tables, [])
        for name, content in contents.items():
            self._served.take_over(self._stored[name][0], content, more=False)

    def _moved(self, name: str, content: TableContent) -> npt.NDArray[np.float64]:
        """(n,) L2 norm of the difference between a row and what servers answer; negative: they have just this."""
        number, table = self._stored[name]
        rows = content.columns[WEIGHT]
        held, is_cold = np.empty_like(rows), np.empty(len(rows), np.bool_)
        self._served.gather_into(number, np.ascontiguousarray(content.keys), held, is_cold)
        # A weight that is not finite goes, so that writing names it.
        moved = np.nan_to_num(np.linalg.norm((rows - held).astype(np.float64), axis=1), nan=np.inf)
        config = table.config
        if not isinstance(config, CollisionlessTable):
            return np.where(moved == 0.0, -1.0, moved)
        # What servers do not know of must reach them although it reads as the cold row does; so must a sight that keeps
        # a row from its ttl.
        lag = content.seen.astype(np.int64) - self._served.seen(number, content.keys)
        is_same = (moved == 0.0) & ~is_cold
        if config.ttl_seconds is not None:
            is_same &= lag == 0
            moved[~is_cold & (lag > config.ttl_seconds // 2)] = np.inf
        return np.where(is_same, -1.0, moved)

    def _row_bytes(self, name: str) -> int:
        width = stored_width(self._dtype, self._stored[name][1].config.dim)
        return _KEY_BYTES + _SEEN_BYTES + width * stored_dtype(self._dtype).itemsize


def _only(content: TableContent, is_chosen: npt.NDArray[np.bool_], candidates: int) -> TableContent:
    held_back = candidates - int(is_chosen.sum())
    return replace(
        content,
        keys=content.keys[is_chosen],
        columns={name: values[is_chosen] for name, values in content.columns.items()},
        seen=content.seen[is_chosen],
        begins=None,
        figures=content.figures | ({"held_back": held_back} if held_back else {}),
    )
