"""`KeyGroup`: the running features that have one key and count the same events, over one native state."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from embtables.errors import DataError
from embtables.native._core import RunningConfig, RunningKeys
from embtables.running.key_table import Int64s, KeyTable, Mask
from embtables.schema.running import AGE_UNIT_US, RunningFeature, RunningOptions

SECOND_US = 1_000_000
_LONGEST_LIST = 2**31 - 1


@dataclass(frozen=True, slots=True)
class GroupEvents:
    """Events as the native state takes them: (n,) each; `values` and `has_value` by column that is remembered.

    `without_key`: how many events were left out because they have no key.
    """

    times: Int64s
    keys: Int64s
    values: list[Int64s]
    has_value: list[Mask | None]
    without_key: int


class KeyGroup:
    """Running features with the same `by` and `where`.

    Args:
        features: at least one.
    """

    def __init__(self, features: Sequence[RunningFeature], options: RunningOptions) -> None:
        self.by, self.where = features[0].by, features[0].where
        self._options = options
        self._lists = [feature for feature in features if feature.last_n is not None]
        self._numbers = [feature for feature in features if feature.last_n is None]
        self._native = self._empty()

    def _empty(self) -> RunningKeys:
        keep = self._options.keep_seconds
        config = RunningConfig(self._options.lateness_seconds * SECOND_US, None if keep is None else keep * SECOND_US)
        for feature in self._numbers:
            if feature.count is not None:
                config.add_count(feature.window_us)
            elif feature.age is not None:
                config.add_age(AGE_UNIT_US[feature.age], feature.default, feature.at_most)
            elif feature.idle is not None:
                config.add_idle(AGE_UNIT_US[feature.idle], feature.default, feature.at_most)
            else:
                config.add_last_value()
        for feature in self._lists:
            assert feature.last_n is not None
            config.add_last_n(feature.last_n.n)
        return RunningKeys(config)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the features."""
        return tuple(feature.name for feature in [*self._numbers, *self._lists])

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of events that the features read, each once."""
        names = [name for feature in [*self._numbers, *self._lists] for name in feature.columns]
        return tuple(dict.fromkeys(names))

    @property
    def num_keys(self) -> int:
        """How many keys have a state."""
        return self._native.num_keys

    @property
    def bytes(self) -> int:
        """Memory of the state."""
        return self._native.bytes

    def prepared(self, table: KeyTable, times: Int64s, counts: Mask | None) -> GroupEvents:
        """Events as `fold` takes them; nothing changes yet.

        Args:
            times: (n,) microseconds.
            counts: (n,) which events count; None: all.

        Raises:
            BadRowsError: values that have no meaning. DataError: a column's type cannot be what a feature makes of it.
        """
        keys, known = table.keys(self.by)
        values: list[Int64s] = []
        has_value: list[Mask | None] = []
        for feature in self._numbers:
            if feature.last_value is not None:
                values.append(table.numbers(feature.last_value))
                has_value.append(None)
        for feature in self._lists:
            assert feature.last_n is not None
            ids, has = table.ids(feature.last_n.column)
            values.append(ids)
            has_value.append(has)
        taken = known if counts is None else counts if known is None else counts & known
        without_key = 0 if known is None else int(np.count_nonzero(~known if counts is None else counts & ~known))
        if taken is not None and not taken.all():
            times, keys = times[taken], keys[taken]
            values = [of[taken] for of in values]
            has_value = [None if of is None else of[taken] for of in has_value]
        return GroupEvents(times, keys, values, has_value, without_key)

    def fold(self, events: GroupEvents, clock: int) -> None:
        """Takes events in, in their order. One thread at a time."""
        self._native.fold(clock, events.times, events.keys, events.values, events.has_value)

    def ask(self, table: KeyTable, times: Int64s) -> dict[str, pa.Array]:
        """The columns, by name, of questions at `times`: (n,) float32, and lists of int64.

        Raises:
            BadRowsError: values that cannot be ids. DataError: a key's column is missing or cannot be ids; a column of
                lists would be longer than 2^31 - 1 values.
        """
        keys, known = table.keys(self.by)
        out = np.empty((len(self._numbers), len(times)), np.float32)
        lists = self._native.ask(times, keys, known, out)
        found = {}
        for feature, numbers in zip(self._numbers, out, strict=True):
            has_null = feature.last_value is not None or (feature.count is None and feature.default is None)
            found[feature.name] = _with_nulls(numbers) if has_null else pa.array(numbers)
        for feature, (offsets, ids) in zip(self._lists, lists, strict=True):
            if len(ids) > _LONGEST_LIST:
                raise DataError(f"would hold {len(ids):,} ids; ask about fewer rows at a time", column=feature.name)
            found[feature.name] = pa.ListArray.from_arrays(pa.array(offsets.astype(np.int32)), pa.array(ids))
        return found

    def image(self) -> dict[str, Int64s]:
        """The state as int64 arrays by name; the same events in the same batches give the same."""
        return self._native.image()

    def loaded(self, arrays: dict[str, Int64s], clock: int) -> RunningKeys:
        """A native state with what `image` made.

        Raises:
            ValueError: `image` made no such arrays.
        """
        for name, array in arrays.items():
            if array.dtype != np.int64:
                raise ValueError(f"'{name}' holds {array.dtype}, expected int64")
        made = self._empty()
        made.fill(arrays, clock)
        return made

    def replace(self, state: RunningKeys) -> None:
        """Goes on from a loaded state."""
        self._native = state


def _with_nulls(numbers: npt.NDArray[np.float32]) -> pa.Array:
    missing = np.isnan(numbers)
    return pa.array(numbers, mask=missing) if missing.any() else pa.array(numbers)
