"""`Past`: what happened before a moment to an item, by a user, and to an item by a user; the users' histories.

The columns are those of `SampledNegatives.running_features`, folded from positives in order of time: a group's lines
at the time of its first one. Examples ask at the time of each row, a server's side tables at the moment after the last.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from embtables.errors import DataError
from embtables.inputs.values import one_array
from embtables.running import RunningFeatures
from embtables.schema import RunningOptions, SampledNegatives

Int64s = npt.NDArray[np.int64]

DAY_US = 86_400_000_000
_MOST_IDS = 1 << 30  # in the lists of one slice


@dataclass(frozen=True, slots=True)
class Codes:
    """A column as numbers from 0, and its distinct values."""

    numbers: Int64s
    values: pa.Array

    def of(self, numbers: Int64s) -> pa.DictionaryArray:
        """The values of numbers, each of which is hashed once."""
        return pa.DictionaryArray.from_arrays(pa.array(numbers), self.values)


def codes(table: pa.Table, name: str) -> Codes:
    """A column of positives. Raises DataError if it has nulls."""
    encoded = pc.dictionary_encode(without_nulls(table, name))
    return Codes(encoded.indices.to_numpy().astype(np.int64), encoded.dictionary)


def without_nulls(table: pa.Table, name: str) -> pa.Array:
    """A column as one array of its values, decoded: a dictionary may hold a value twice, or none."""
    column = table.column(name)
    array = one_array(column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column)
    if array.null_count:
        raise DataError(f"is null in {array.null_count:,} positives; leave them out: '{name} is not null'", column=name)
    return array


class Past:
    """Running features over positives in order of time, taken in slice by slice.

    Args:
        table: (n,) positives.
        times: (n,) of their groups, ascending, in microseconds.
    """

    def __init__(self, config: SampledNegatives, table: pa.Table, times: Int64s) -> None:
        self.config = config
        self.table, self.times = table, times
        self.items, self.users = codes(table, config.item), codes(table, config.user)
        options = RunningOptions(event_time=config.event_time, lateness_seconds=0)
        # Which lines are positives was decided before, by their own times: those conditions are not looked at again.
        conditions = len(config.where)
        self._definitions = [f.model_copy(update={"where": f.where[conditions:]}) for f in config.running_features()]
        self._running = RunningFeatures(self._definitions, options)

    def take(self, start: int, stop: int, rows: Int64s, items: Int64s) -> dict[str, pa.Array]:
        """Takes positives start..stop-1 in, and gives the columns of items at the times of some of them, by name.

        Args:
            start: where the call before stopped.
            rows: (m,) positives start..stop-1, whose user and time it is about.
            items: (m,) numbers of items.
        """
        lines = slice(start, stop)
        asked = {
            self.config.item: self.items.of(items),
            self.config.user: self.users.of(self.users.numbers[rows]),
        }
        events = self._at(self.table.slice(start, stop - start), self.times[lines])
        return self._running.replay(events, self._at(pa.table(asked), self.times[rows]))

    def at_end(self, keys: dict[str, pa.Array]) -> pa.Table:
        """The columns that have these keys, no more and no less, as of the moment after the last positive.

        Args:
            keys: the item, the user or both: (m,) each; a null has no past.
        """
        names = [feature.name for feature in self._definitions if set(feature.by) == set(keys)]
        moment = int(self.times[-1]) + 1
        rows = max(1, _MOST_IDS // self.config.history_length)
        parts = []
        for start in range(0, len(next(iter(keys.values()))), rows):
            part = pa.table({name: values.slice(start, rows) for name, values in keys.items()})
            found = self._running.columns(self._at(part, np.full(part.num_rows, moment)), names)
            parts.append(pa.table(found).cast(pa.schema([_wide(name, of.type) for name, of in found.items()])))
        return pa.concat_tables(parts)

    def _at(self, table: pa.Table, times: Int64s) -> pa.Table:
        column = pa.array(times).cast(pa.timestamp("us"))
        name = self.config.event_time
        if name not in table.schema.names:
            return table.append_column(name, column)
        return table.set_column(table.schema.get_field_index(name), name, column)


def _wide(name: str, kind: pa.DataType) -> pa.Field:
    """A column of all keys: lists of all users may be longer than small offsets reach."""
    return pa.field(name, pa.large_list(kind.value_type) if pa.types.is_list(kind) else kind)
