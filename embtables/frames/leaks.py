"""Columns that give the label away: with them a model learns nothing else, and at serving time they do not exist."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from embtables.frames.facts import ColumnFacts, plain

Mask = npt.NDArray[np.bool_]
_LEAST_ROWS_PER_VALUE = 20


def leak_of(column: pa.ChunkedArray, facts: ColumnFacts, positive: Mask) -> str | None:
    """How a column gives the label away; None: it does not, or the rows are too few to tell.

    Args:
        positive: (rows,) the label. Both classes are there.
    """
    array = plain(column)
    if facts.rows < 2 * _LEAST_ROWS_PER_VALUE:
        return None
    valid = array.is_valid().to_numpy(zero_copy_only=False)
    if facts.nulls and (np.array_equal(valid, positive) or np.array_equal(valid, ~positive)):
        return "has a value exactly where the label is " + ("1" if np.array_equal(valid, positive) else "0")
    labels = positive[valid]
    if not len(labels) or labels.all() or not labels.any():
        return None
    array = array.drop_null()
    if facts.kind in ("integer", "number", "boolean", "time"):
        return _separates(array, labels)
    if facts.kind == "text" and facts.values >= _LEAST_ROWS_PER_VALUE * facts.distinct:
        return _decides(array, labels)
    return None


def _separates(array: pa.Array, labels: Mask) -> str | None:
    """Whether all positives lie above (or below) all negatives."""
    if pa.types.is_boolean(array.type):
        array = array.cast(pa.int8())
    if pa.types.is_temporal(array.type):  # Python has no date for some times
        array = array.cast(pa.int32() if pa.types.is_date32(array.type) else pa.int64())
    mask = pa.array(labels)
    positives, negatives = pc.min_max(array.filter(mask)).as_py(), pc.min_max(array.filter(pc.invert(mask))).as_py()
    if positives["min"] > negatives["max"] or positives["max"] < negatives["min"]:
        same = positives["min"] == positives["max"] and negatives["min"] == negatives["max"]
        return "equals the label" if same else "separates the label's classes: its AUC is 1.0"
    if _distinct_at_most(array, len(labels) // _LEAST_ROWS_PER_VALUE):
        return _decides(array, labels)
    return None


def _distinct_at_most(array: pa.Array, most: int) -> bool:
    return bool(pc.count_distinct(array).as_py() <= most)


def _decides(array: pa.Array, labels: Mask) -> str | None:
    """Whether each value comes with one label alone."""
    table = pa.table({"value": array, "label": pa.array(labels.astype(np.int8))})
    found = table.group_by("value").aggregate([("label", "min"), ("label", "max")])
    if found.num_rows > 1 and pc.all(pc.equal(found["label_min"], found["label_max"])).as_py():
        return "decides the label: each of its values comes with one label alone"
    return None
