"""Running features the slow way: all events in one list, looked through for every question."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from embtables.inputs.columns import plain_ids
from embtables.schema import RunningFeature
from embtables.schema.running import AGE_UNIT_US

Row = Mapping[str, Any]


COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    ">": lambda value, literal: value is not None and value > float(literal),
    "is not null": lambda value, _: value is not None,
}


class Oracle:
    """Rows are mappings with `event_time` in microseconds; a column that is absent is null."""

    def __init__(self, features: Sequence[RunningFeature]) -> None:
        self._features = features
        self._events: list[Row] = []

    def fold(self, rows: Sequence[Row]) -> None:
        self._events += rows

    def answer(self, question: Row) -> dict[str, Any]:
        return {feature.name: self._one(feature, question) for feature in self._features}

    def _one(self, feature: RunningFeature, question: Row) -> Any:
        now = question["event_time"]
        key = [question.get(column) for column in feature.by]
        earlier = [
            row
            for row in self._events
            if None not in key and [row.get(c) for c in feature.by] == key and row["event_time"] < now
            if self._counts(feature, row)
        ]
        earlier.sort(key=lambda row: row["event_time"])  # stable: of equal times, in the order of arrival
        if feature.count is not None:
            window = feature.window_us
            return float(sum(window is None or row["event_time"] >= now - window for row in earlier))
        if feature.last_n is not None:
            values = [row.get(feature.last_n.column) for row in earlier]
            return [as_id(value) for value in values if value is not None][-feature.last_n.n :]
        if feature.last_value is not None:
            value = earlier[-1].get(feature.last_value) if earlier else None
            return None if value is None else float(np.float32(value))
        if not earlier:
            return feature.default
        unit = feature.age or feature.idle
        assert unit is not None
        since = now - earlier[0 if feature.age else -1]["event_time"]
        most = float("inf") if feature.at_most is None else feature.at_most
        return float(np.float32(min(float(since) / AGE_UNIT_US[unit], most)))

    def _counts(self, feature: RunningFeature, row: Row) -> bool:
        return all(COMPARISONS[c.op](row.get(c.column), c.value) for c in feature.where)


def as_id(value: Any) -> int:
    return int(plain_ids("value", pa.array([value]))[0])


def as_batch(rows: Sequence[Row], columns: Mapping[str, pa.DataType]) -> pa.RecordBatch:
    """Rows as a record batch with the event time and these columns."""
    arrays = {name: pa.array([row.get(name) for row in rows], kind) for name, kind in columns.items()}
    times = pa.array([row["event_time"] for row in rows], pa.int64()).cast(pa.timestamp("us"))
    return pa.record_batch({**arrays, "event_time": times})
