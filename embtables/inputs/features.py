"""The features stage: Arrow rows -> `Block` of numpy arrays -> `Batch`. Training and serving run this code alike.

A table is converted once, column by column; batches are slices of the result, laid out as `JaggedIds` in the order of
the schema's features. List columns come over without a copy; a batch copies its slice once.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import torch

from embtables.arguments import as_table
from embtables.arrow.types import take_column
from embtables.errors import DataError
from embtables.given import as_name, need, need_all
from embtables.inputs.batch import Batch, JaggedIds
from embtables.inputs.columns import Ids, feature_ids, ranges
from embtables.inputs.times import as_microseconds
from embtables.inputs.transforms import FittedTransforms, TransformFitter
from embtables.inputs.values import (
    BadRowsError,
    Float32s,
    Int64s,
    as_float64,
    holds_float32,
    one_array,
    plain_float32,
    to_float32,
)
from embtables.schema import DenseColumn, EventTime, Feature, Label, Schema

__all__ = ["BadRowsError", "Block", "FeatureTransform", "FittedTransforms", "Needs", "TransformFitter", "make_batch"]


_FILLS = "; fill_null and fill_nan of a dense column name numbers that stand for a null and a NaN"
_FEW_ROWS = 4096  # as a request has; of more, columns do not fit into the processor's caches together
Rows: TypeAlias = "pa.Table | pa.RecordBatch | Mapping[str, Any]"


@dataclass(frozen=True, slots=True)
class Block:
    """n converted rows. `starts[f]` holds (n + 1,) offsets of feature f, or None if every row has one id."""

    num_rows: int
    ids: tuple[Ids, ...]
    starts: tuple[Int64s | None, ...]
    dense: Float32s
    labels: Float32s
    weight: Float32s | None
    event_time_us: Int64s | None

    @classmethod
    def of(cls, ids: Sequence[Ids], dense: Float32s) -> Block:
        """Rows without labels, weights and times."""
        return _block(len(dense), ids, dense, np.empty((len(dense), 0), np.float32), None, None)

    def take(self, order: Int64s) -> Block:
        """The rows in another order (or some of them)."""
        ids = [take_ids(i, s, order) for i, s in zip(self.ids, self.starts, strict=True)]
        return _block(
            len(order),
            ids,
            self.dense[order],
            self.labels[order],
            None if self.weight is None else self.weight[order],
            None if self.event_time_us is None else self.event_time_us[order],
        )


def take_ids(ids: Ids, starts: Int64s | None, order: Int64s) -> Ids:
    """One feature's ids of rows in another order, or of some of them; `starts` as of Block."""
    if ids.lengths is None or starts is None:
        return Ids(ids.values[order], None, None if ids.weights is None else ids.weights[order])
    lengths = ids.lengths[order]
    index = ranges(starts[:-1][order], lengths)
    return Ids(ids.values[index], lengths, None if ids.weights is None else ids.weights[index])


def _block(
    n: int, ids: Sequence[Ids], dense: Float32s, labels: Float32s, weight: Float32s | None, event_time: Int64s | None
) -> Block:
    starts = tuple(None if i.lengths is None else np.concatenate([[0], np.cumsum(i.lengths)]) for i in ids)
    return Block(n, tuple(ids), starts, dense, labels, weight, event_time)


@dataclass(frozen=True, slots=True)
class Needs:
    """What a task reads of a row beside ids and dense columns, in training and in evaluation.

    Attributes:
        labels: the schema's.
        weight: the sample weight, if the schema names one.
    """

    labels: bool = True
    weight: bool = True


class FeatureTransform:
    """Converts Arrow tables of a schema's columns.

    Two roles: `for_training` reads labels, sample weight and event time beside features and dense columns;
    `for_scoring` reads features and dense columns alone, so that a request needs nothing else. Both convert them by
    the same code.

    Args:
        schema: what the columns mean.
        fitted: transforms fitted on training data; may be empty if the schema needs none.
        labels, sample_weight, event_time: what is read beside features and dense columns.

    Example:
        >>> import pyarrow
        >>> from embtables import Feature, Schema, FeatureTransform, FittedTransforms, FixedTable, Label, Sgd
        >>> item = FixedTable(name="item", dim=8, num_rows=100, optimizer=Sgd(learning_rate=0.1))
        >>> feature, label = Feature(name="item_id", table="item"), Label(column="clicked")
        >>> schema = Schema(tables=(item,), features=(feature,), labels=(label,))
        >>> scoring = FeatureTransform.for_scoring(schema, FittedTransforms())
        >>> scoring.columns, scoring.batch(pyarrow.table({"item_id": [7, 8]})).num_rows
        (('item_id',), 2)
        >>> FeatureTransform.for_training(schema, FittedTransforms()).columns
        ('item_id', 'clicked')
    """

    def __init__(
        self,
        schema: Schema,
        fitted: FittedTransforms,
        *,
        labels: tuple[Label, ...] = (),
        sample_weight: str | None = None,
        event_time: EventTime | None = None,
    ) -> None:
        need(schema, Schema, "schema", "a Schema")
        need(fitted, FittedTransforms, "fitted", "FittedTransforms")
        need_all(labels, Label, "labels", "Label")
        if sample_weight is not None:
            as_name(sample_weight, "sample_weight")
        need(event_time, EventTime | None, "event_time", "the schema's EventTime")
        self.schema = schema
        self.fitted = fitted
        self._labels = labels
        self._sample_weight = sample_weight
        self._event_time = event_time
        self.names = [feature.name for feature in schema.features]

    @classmethod
    def for_training(cls, schema: Schema, fitted: FittedTransforms, needs: Needs | None = None) -> FeatureTransform:
        """Reads all that training and evaluation need of a row.

        Args:
            needs: what the task needs (`Task.needs`); by default labels and weight. What is not needed is not read:
                labels are (B, 0), or the weight None.
        """
        needs = Needs() if needs is None else needs
        return cls(
            schema,
            fitted,
            labels=schema.labels if needs.labels else (),
            sample_weight=schema.sample_weight if needs.weight else None,
            event_time=schema.event_time,
        )

    @classmethod
    def for_scoring(cls, schema: Schema, fitted: FittedTransforms) -> FeatureTransform:
        """Reads features and dense columns; labels are (B, 0), weight and event time None.

        A row past its table's ttl reads cold by the table's own clock, which only training moves.
        """
        return cls(schema, fitted)

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that `convert` reads."""
        names = [c for f in self.schema.features for c in f.columns] + [d.column for d in self.schema.dense]
        names += [label.column for label in self._labels]
        names += [self._sample_weight] if self._sample_weight is not None else []
        names += [self._event_time.column] if self._event_time is not None else []
        return tuple(dict.fromkeys(names))

    def convert(self, table: Rows) -> Block:
        """All rows of a table: Arrow's, a data frame, or a list or array for each column.

        Raises:
            BadRowsError: values without meaning; holds the rows that share the first fault found.
            DataError: this is no table, or a column is missing or has the wrong type.
        """
        table = as_table(table)
        columns = {}
        for name in self.columns:
            column = take_column(table, name)
            if column is None:
                raise DataError(f"is missing; there are: {', '.join(table.schema.names)}", column=name)
            columns[name] = one_array(column)
        n = table.num_rows
        part = self.convert_part(columns, n, self.schema.features, self.schema.dense)
        return replace(
            part, labels=self._label(columns, n), weight=self._weight(columns), event_time_us=self._time(columns)
        )

    def convert_part(
        self, columns: Mapping[str, pa.Array], n: int, features: Sequence[Feature], dense: Sequence[DenseColumn]
    ) -> Block:
        """Some features and dense columns of n rows.

        Args:
            columns: all that they read, of plain types.
            features, dense: of the schema.

        Raises:
            BadRowsError, DataError: as `convert`.
        """
        ids = []
        for feature in features:
            boundaries = self.fitted.boundaries(feature.name) if feature.num_buckets is not None else None
            ids.append(feature_ids(feature, columns, boundaries))
        return Block.of(ids, self._dense(columns, n, dense))

    def empty(self) -> Block:
        """A block without rows."""
        nothing = np.empty(0, np.int64)
        s = self.schema
        ids = [Ids(nothing, None, None if f.weights_column is None else np.empty(0, np.float32)) for f in s.features]
        weight = None if self._sample_weight is None else np.empty(0, np.float32)
        dense, labels = (np.empty((0, len(columns)), np.float32) for columns in (s.dense, self._labels))
        return _block(0, ids, dense, labels, weight, None if self._event_time is None else nothing)

    def batch(self, table: Rows) -> Batch:
        """All rows of a table as one batch: what a server does with a request. Arguments and errors as of `convert`."""
        block = self.convert(table)
        return make_batch(self.names, [(block, 0, block.num_rows)])

    def _dense(self, columns: Mapping[str, pa.Array], n: int, specs: Sequence[DenseColumn]) -> Float32s:
        dense = np.empty((n, len(specs)), np.float32)
        together = self._dense_together(columns, specs, dense) if n <= _FEW_ROWS else frozenset()
        for position, spec in enumerate(specs):
            if position in together:
                continue
            column = columns[spec.column]
            stored = None if spec.transforms else plain_float32(column)
            if stored is not None:
                dense[:, position] = stored
                continue
            values = as_float64(spec.column, column, fill=spec.fill_null, fill_nan=spec.fill_nan, hint=_FILLS)
            dense[:, position] = to_float32(spec.column, self.fitted.apply(spec, values), stored=values)
        return dense

    def _dense_together(
        self, columns: Mapping[str, pa.Array], specs: Sequence[DenseColumn], into: Float32s
    ) -> Collection[int]:
        """Fills the columns that can be taken together, and returns their positions: the values are the same."""
        groups: dict[tuple[str, ...], list[int]] = {}
        for position, spec in enumerate(specs):
            column = columns[spec.column]
            if pa.types.is_float64(column.type) and not column.null_count:
                groups.setdefault(spec.transforms, []).append(position)
        done: set[int] = set()
        for positions in groups.values():
            of_group = [specs[position] for position in positions]
            values = np.stack([columns[spec.column].to_numpy() for spec in of_group])
            found = self.fitted.apply_together(of_group, values) if np.isfinite(values).all() else None
            # A fault is left to the other way, which tells whose it is.
            if found is not None and holds_float32(found):
                into[:, positions] = found.T
                done.update(positions)
        return done

    def _label(self, columns: dict[str, pa.Array], n: int) -> Float32s:
        labels = np.empty((n, len(self._labels)), np.float32)
        for position, label in enumerate(self._labels):
            values = as_float64(label.column, columns[label.column], fill=None)
            if label.positive_above is not None:
                labels[:, position] = values > label.positive_above
                continue
            wrong = np.flatnonzero((values != 0.0) & (values != 1.0))
            if len(wrong):
                raise BadRowsError(
                    f"holds the label {values[wrong[0]]:g}; labels are 0 or 1, or set positive_above",
                    label.column,
                    wrong,
                )
            labels[:, position] = values
        return labels

    def _weight(self, columns: dict[str, pa.Array]) -> Float32s | None:
        name = self._sample_weight
        if name is None:
            return None
        values = as_float64(name, columns[name], fill=None)
        wrong = np.flatnonzero(values < 0.0)
        if len(wrong):
            raise BadRowsError(f"holds {values[wrong[0]]:g}; sample weights are not negative", name, wrong)
        return to_float32(name, values)

    def _time(self, columns: dict[str, pa.Array]) -> Int64s | None:
        event_time = self._event_time
        return None if event_time is None else as_microseconds(event_time, columns[event_time.column])


def make_batch(names: list[str], parts: Sequence[tuple[Block, int, int]]) -> Batch:
    """The rows start..stop-1 of each block, one after the other, as one batch; at least one part."""
    rows = sum(stop - start for _, start, stop in parts)
    values: list[Int64s] = []
    weights: list[Float32s] = []
    first = parts[0][0]
    weighted = any(own.weights is not None for own in first.ids)
    lengths = np.ones((len(names), rows), np.int64)
    for feature in range(len(names)):
        at = 0
        for block, start, stop in parts:
            own, starts = block.ids[feature], block.starts[feature]
            piece = slice(start, stop) if starts is None else slice(int(starts[start]), int(starts[stop]))
            values.append(own.values[piece])
            if own.lengths is not None:
                lengths[feature, at : at + stop - start] = own.lengths[start:stop]
            if weighted:
                weights.append(np.ones(len(values[-1]), np.float32) if own.weights is None else own.weights[piece])
            at += stop - start
    ids = JaggedIds(
        tuple(names),
        torch.from_numpy(np.concatenate(values)),
        torch.from_numpy(lengths.reshape(-1)),
        rows,
        torch.from_numpy(np.concatenate(weights)) if weighted else None,
    )
    return Batch(
        ids,
        _joined([b.dense[i:j] for b, i, j in parts]),
        _joined([b.labels[i:j] for b, i, j in parts]),
        None if first.weight is None else _joined([b.weight[i:j] for b, i, j in parts if b.weight is not None]),
        None
        if first.event_time_us is None
        else _joined([b.event_time_us[i:j] for b, i, j in parts if b.event_time_us is not None]),
    )


def _joined(arrays: list[Any]) -> torch.Tensor:
    # Arrow's buffers are read-only, which torch does not know: what it gets is a copy of a batch's size.
    return torch.from_numpy(np.concatenate(arrays))
