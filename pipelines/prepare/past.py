"""`Past`: what happened before a moment, to an item, by a user, and to an item by a user; the users' histories.

All of it counts groups (invoices) that are strictly earlier. Examples ask for the moment of each row, a server's side
tables for the moment after the last row: by the same code.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from embtables.errors import DataError
from embtables.inputs.columns import plain_ids, ranges
from embtables.inputs.values import as_float64, one_array
from embtables.pipelines.prepare.past_counts import PastCounts
from embtables.schema import SampledNegatives
from embtables.schema.prepare import SALES_WINDOWS_DAYS

Int64s = npt.NDArray[np.int64]
Numbers = dict[str, "npt.NDArray[np.int64] | npt.NDArray[np.float64]"]

DAY_US = 86_400_000_000
NEVER_DAYS = 999.0
UNSEEN = -1
"""The number of an item or user that there is none of."""


@dataclass(frozen=True, slots=True)
class Codes:
    """A column as numbers from 0, and its distinct values."""

    numbers: Int64s
    values: pa.Array


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
    """Indexes over positives in order of time. Items and users are numbers, `UNSEEN` or those of `items` and `users`.

    Args:
        table: (n,) positives.
        times: (n,) of their groups, ascending, in microseconds.
    """

    def __init__(self, config: SampledNegatives, table: pa.Table, times: Int64s) -> None:
        self.config = config
        self.times = times
        self.items, self.users = codes(table, config.item), codes(table, config.user)
        self.by_item = PastCounts(self.items.numbers, times)
        self.by_user = PastCounts(self.users.numbers, times)
        self.by_pair = PastCounts(self._pairs(self.users.numbers, self.items.numbers), times)
        self._item_ids = plain_ids(config.item, self.items.values)
        self._prices = None
        if config.price is not None:
            column = one_array(table.column(config.price))
            prices = as_float64(config.price, column, fill=0.0)
            # A sale without a price stays one: NaN, which no price of a log is.
            self._prices = np.where(column.is_null().to_numpy(zero_copy_only=False), np.nan, prices)

    def _pairs(self, users: Int64s, items: Int64s) -> Int64s:
        known = (users >= 0) & (items >= 0)
        return np.where(known, users * len(self.items.values) + items, UNSEEN)

    def pairs(self) -> tuple[Int64s, Int64s]:
        """(m,) user and (m,) item of each pair there is."""
        return np.divmod(self.by_pair.keys, len(self.items.values))

    def of_items(self, items: Int64s, times: Int64s) -> Numbers:
        """(n,) by column, of items before times."""
        first, last = self.by_item.before(items, times)
        windows = {w: self.by_item.count(items, times, times - w * DAY_US) for w in SALES_WINDOWS_DAYS}
        return {
            **{f"item_sales_{w}d": count for w, count in windows.items()},
            "item_sales": last - first,
            "item_age_days": self._days_since(self.by_item, first, last, times, oldest=True),
            "item_idle_days": self._days_since(self.by_item, first, last, times, oldest=False),
        }

    def prices(self, items: Int64s, times: Int64s) -> pa.Array | None:
        """(n,) float32, the price of each item's last sale before a time; null if there is none. None: no prices."""
        if self._prices is None:
            return None
        first, last = self.by_item.before(items, times)
        price = self._prices[self.by_item.order[np.maximum(last - 1, 0)]]
        return pa.array(price.astype(np.float32), mask=(last <= first) | np.isnan(price))

    def of_users(self, users: Int64s, times: Int64s) -> Numbers:
        """(n,) by column, of users before times."""
        return {"user_count": self.by_user.count(users, times)}

    def histories(self, users: Int64s, times: Int64s) -> tuple[Int64s, Int64s]:
        """The last items of the users before times, oldest first, as the ids that the item column becomes: (n + 1,)
        offsets and (sum of lengths,) ids.
        """
        first, last = self.by_user.before(users, times)
        lengths = np.minimum(last - first, self.config.history_length)
        places = self.by_user.order[ranges(last - lengths, lengths)]
        offsets = np.zeros(len(users) + 1, np.int64)
        np.cumsum(lengths, out=offsets[1:])
        return offsets, self._item_ids[self.items.numbers[places]]

    def of_pairs(self, users: Int64s, items: Int64s, times: Int64s) -> Numbers:
        """(n,) by column, of items and users before times."""
        first, last = self.by_pair.before(self._pairs(users, items), times)
        idle = self._days_since(self.by_pair, first, last, times, oldest=False)
        return {"user_item_count": last - first, "user_item_idle_days": idle}

    def _days_since(
        self, index: PastCounts, first: Int64s, last: Int64s, times: Int64s, *, oldest: bool
    ) -> npt.NDArray[np.float64]:
        """Days from the key's first (or last) earlier event; NEVER_DAYS if it has none."""
        place = np.minimum(first if oldest else np.maximum(last - 1, 0), len(index.order) - 1)
        days = (times - self.times[index.order[place]]) / DAY_US
        return np.where(last > first, np.minimum(days, NEVER_DAYS), NEVER_DAYS)


def as_float32s(numbers: Numbers) -> dict[str, pa.Array]:
    """The columns as they are written."""
    return {name: pa.array(values.astype(np.float32)) for name, values in numbers.items()}
