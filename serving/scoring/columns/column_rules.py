"""`ColumnRules`: which columns a request to a version may have, what each is read as, and what stands in for it."""

from __future__ import annotations

import pyarrow as pa

from embtables.inputs.features import FeatureTransform
from embtables.inputs.id_kinds import id_kind
from embtables.models.version_content import ScoringContent
from embtables.serving.refusals import Refusal, unknown
from embtables.serving.scoring.columns.json_columns import Reading
from embtables.serving.scoring.side_tables import Place, SideTables

MAX_SHAPES = 256  # clients decide which there are
_UNITS_US = {"s": 1_000_000, "ms": 1_000, "us": 1}


class ColumnRules:
    """The columns of a version's requests.

    Attributes:
        needed: what the features stage reads, in its order.
        roots_first: the same, those before that no side table gives.
        known: what a request may name: also keys of side tables, and what a row of the log has beside features.
        clock: the event time's column, where the features stage reads it: by default the server's time.
        may_be_null: dense columns with `fill_null`, which a request may leave out.
        joined: columns that side tables can give.
        keys: columns that they are looked up by.
        running: columns that a server with an event log computes, with the keys that they are looked up by.
        candidate_key: the column whose value a candidate is that is given as its id alone.
        id_kinds: by column what training made ids of.
        good_shapes: of rows that were found to be what JSON's slower way reads, at most MAX_SHAPES.
    """

    def __init__(self, content: ScoringContent, side_tables: SideTables) -> None:
        schema = content.trained
        self.needed = FeatureTransform.for_scoring(schema, content.fitted).columns
        self.candidate_key = content.candidate_key
        self.id_kinds = content.id_kinds
        self.good_shapes = set[str]()
        self.joined, self.keys = side_tables.columns, side_tables.keys
        features = () if content.running is None else content.running.features
        self.running = {feature.name: feature.by for feature in features}
        self._side_tables = side_tables
        # A missing key is named, and not what it would have given.
        self.roots_first = sorted(self.needed, key=lambda column: column in self.joined)
        event_time = schema.event_time
        self._unit = None if event_time is None else event_time.unit
        self.clock = event_time.column if event_time is not None and event_time.column in self.needed else None
        of_features = {column for feature in schema.features for column in feature.columns}
        filled = {dense.column for dense in schema.dense if dense.fill_null is not None}
        self.may_be_null = frozenset(filled - of_features)
        others = (schema.sample_weight, self.candidate_key)
        beside = {label.column for label in schema.labels} | {name for name in others if name is not None}
        beside |= set() if event_time is None else {event_time.column}
        of_running = {column for by in self.running.values() for column in by}
        self.known = frozenset({*self.needed, *side_tables.columns, *side_tables.keys, *of_running, *beside})
        self._readings: dict[str, Reading] = {}
        for dense in schema.dense:
            self._readings[dense.column] = "numbers"
        for feature in schema.features:
            for column in feature.columns:
                self._readings[column] = "ids"
            if feature.num_buckets is not None and feature.column is not None:
                self._readings[feature.column] = "numbers"
            if feature.weights_column is not None:
                self._readings[feature.weights_column] = "numbers"
        for feature in schema.features:
            if feature.timestamp_part is not None and feature.column is not None:
                self._readings[feature.column] = "times"
        if event_time is not None:
            self._readings[event_time.column] = event_time.unit or "times"
        for column in side_tables.times:
            if self.reading(column) == "ids":
                self._readings[column] = "times"

    def reading(self, column: str) -> Reading:
        """What a column is read as."""
        return self._readings.get(column, "ids")

    def check(self, column: str, field: str) -> None:
        """Raises Refusal 422 if a request may not name a column."""
        if column not in self.known:
            raise unknown("column", column, self.known, field)

    def check_kind(self, column: str, values: pa.Array, place: Place) -> None:
        """Raises Refusal 422 if ids are of another kind than training read: each would be the id of something else."""
        trained = self.id_kinds.get(column)
        here = None if trained is None or values.null_count == len(values) else id_kind(values.type)
        if here is not None and trained != here and self.reading(column) == "ids":
            raise Refusal(422, f"holds {here}, but {trained} in training; write it as the log has it", place(column, 0))

    def default(self, column: str, place: Place, at_us: int) -> pa.Array:
        """(1,) what stands for a column that neither the request nor a side table gives.

        Args:
            at_us: when the request came, microseconds since 1970.

        Raises:
            Refusal: 422, nothing does.
        """
        if column == self.clock:
            return self.time(at_us)
        if column in self.may_be_null:
            return pa.nulls(1)
        why = "no side table gives it, and it has no fill_null"
        if column in self.joined:
            why = f"give it, or {', '.join(self._side_tables.keys_of(column))}, by which a side table gives it"
        elif column in self.running:
            why = f"give it, or {', '.join(self.running[column])}, by which a server with an event log computes it"
        raise Refusal(422, f"column '{column}' is missing: {why}", place(column, None))

    def time(self, at_us: int) -> pa.Array:
        """(1,) a time, microseconds since 1970, as the event time's column holds it."""
        if self._unit is None:
            return pa.array([at_us], pa.timestamp("us"))
        return pa.array([at_us * 1_000 if self._unit == "ns" else at_us // _UNITS_US[self._unit]], pa.int64())
