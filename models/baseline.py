"""Baseline columns of an evaluation: numbers of the log that rank rows as if they were predictions."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from embtables.errors import DataError
from embtables.inputs.values import one_array
from embtables.models.metrics import MetricSet
from embtables.models.metrics.metric import Floats, Groups

LongDoubles = npt.NDArray[np.longdouble]

_NUMERIC = (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal, pa.types.is_boolean, pa.types.is_null)


class BaselineFigures:
    """The ranking figures of one baseline column, of the rows in which it has a value."""

    def __init__(self) -> None:
        # A baseline ranks rows; its values are no probabilities, so only ranking figures mean anything.
        self._metrics = MetricSet(of_order=True)
        self._rows = self._null_rows = 0

    def update(self, numbers: LongDoubles, labels: Floats, weight: Floats | None, groups: Groups | None) -> None:
        """Adds rows: `numbers` is (n,), NaN where there is no value."""
        there = ~np.isnan(numbers)
        self._rows += int(there.sum())
        self._null_rows += int((~there).sum())
        weight = None if weight is None else weight[there]
        groups = None if groups is None else groups[there]
        self._metrics.update(_narrowest(numbers[there]), labels[there], weight, groups)

    def compute(self) -> dict[str, Any]:
        """The figures, and how many rows they are of; None if one is undefined."""
        return {**self._metrics.compute(), "rows": self._rows, "null_rows": self._null_rows}


def _narrowest(numbers: LongDoubles) -> Floats:
    """The same numbers, in half or a quarter of the memory where that holds them: metrics keep them all."""
    with np.errstate(over="ignore"):
        for kind in (np.float32, np.float64):
            narrow: Floats = numbers.astype(kind)
            if np.array_equal(narrow, numbers):
                return narrow
    return numbers


def baseline_numbers(name: str, column: pa.ChunkedArray | pa.Array) -> LongDoubles:
    """(n,) a baseline column in a type that orders all of its values; NaN where it is null.

    A long double has 64 bits of mantissa: every integer of 64 bits and every float64 keep their order and their ties.
    Decimals are exact as far as they are integers of 64 bits, otherwise rounded to float64.

    Raises:
        DataError: the column holds no numbers.
    """
    array = one_array(column)
    if not any(check(array.type) for check in _NUMERIC):
        raise DataError(f"holds {array.type}; evaluate.baseline_columns rank rows by numbers", column=name)
    if pa.types.is_decimal(array.type):
        array = _of_decimals(array)
    elif pa.types.is_boolean(array.type) or pa.types.is_null(array.type):
        array = array.cast(pa.int8())
    numbers: LongDoubles = array.fill_null(0).to_numpy(zero_copy_only=False).astype(np.longdouble)
    numbers[array.is_null().to_numpy(zero_copy_only=False)] = np.nan
    return numbers


def _of_decimals(array: pa.Array) -> pa.Array:
    for kind in (pa.int64(), pa.uint64()):
        try:
            return array.cast(kind)
        except pa.ArrowInvalid:
            continue
    return array.cast(pa.float64(), safe=False)
