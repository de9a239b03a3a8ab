"""Rows of samples: the columns of the impressions that they are of, whatever columns each entry has."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from embtables.pipelines.online.join.payloads import Payloads, UInt32s, by_entry
from embtables.state.format.side_file import is_stored_type, stored_type

CORRECTION = "correction"
"""bool: the sample's impression was given as a negative before."""


class SampleColumns:
    """The columns that samples have: those of all entries so far, in the order in which they were first seen.

    Args:
        label: the column of the label, float32. It and `correction` take the place of columns of their names.
        only: columns that samples have, where entries have them; None: all.
    """

    def __init__(self, label: str, only: Collection[str] | None) -> None:
        self._label = label
        self._only = None if only is None else frozenset(only)
        self.schema = pa.schema([])
        self._last: pa.Schema | None = None

    def take_up(self, schema: pa.Schema) -> bool:
        """Adds an entry's columns; False, and nothing is added, where a type does not go with those of before."""
        if self._last is not None and schema.equals(self._last):
            return True
        stored = self._stored(schema)
        if len(set(stored.names)) < len(stored) or not all(is_stored_type(field.type) for field in stored):
            return False
        try:
            self.schema = pa.unify_schemas([self.schema, stored], promote_options="permissive")
        except (pa.ArrowInvalid, pa.ArrowTypeError):
            return False
        self._last = schema
        return True

    def load(self, schema: pa.Schema) -> bool:
        """Adds the columns that samples of a partition have had. Returns False as `take_up` does."""
        self._last = None
        try:
            self.schema = pa.unify_schemas([self.schema, schema], promote_options="permissive")
        except (pa.ArrowInvalid, pa.ArrowTypeError):
            return False
        return True

    def make(
        self,
        payloads: Payloads,
        entries: UInt32s,
        rows: UInt32s,
        labels: npt.NDArray[np.float32],
        corrections: npt.NDArray[np.bool_],
    ) -> pa.Table:
        """n samples in the order given, all arguments (n,). Raises as `EventLog.fetch`."""
        pieces = list[pa.Table]()
        order = list[npt.NDArray[np.int64]]()
        for entry, places in by_entry(entries):
            events = payloads.events(entry)
            stored = self._stored(events.schema)
            taken = pa.Table.from_batches([events.select(stored.names).take(pa.array(rows[places]))])
            pieces.append(taken if taken.schema.equals(stored) else taken.cast(stored))
            order.append(places)
        if not pieces:
            table = self.schema.empty_table()
        elif len(pieces) == 1 and pieces[0].schema.equals(self.schema):
            table = pieces[0]
        else:
            table = pa.concat_tables([self.schema.empty_table(), *pieces], promote_options="permissive")
        if (np.diff(entries.astype(np.int64)) < 0).any():  # else they come in this order already
            inverse = np.empty(len(entries), np.int64)
            inverse[np.concatenate(order)] = np.arange(len(entries))
            table = table.take(pa.array(inverse))
        table = table.append_column(pa.field(self._label, pa.float32()), pa.array(labels))
        return table.append_column(pa.field(CORRECTION, pa.bool_()), pa.array(corrections))

    def _stored(self, schema: pa.Schema) -> pa.Schema:
        """As a version can hold it: values in place of dictionaries; a column that an entry lacks is null."""
        wanted = set(schema.names if self._only is None else self._only) - {self._label, CORRECTION}
        return pa.schema([pa.field(f.name, stored_type(f.type)) for f in schema if f.name in wanted])


def joined(tables: Sequence[pa.Table]) -> pa.Table:
    """Samples one after the other, with the columns of all."""
    return pa.concat_tables([table for table in tables if table.num_columns], promote_options="permissive")
