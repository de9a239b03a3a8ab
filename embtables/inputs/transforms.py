"""Transforms of numbers fitted on training data: mean and deviation, quantiles. Stored with the model as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from embtables.errors import StateError
from embtables.inputs.values import MAX_FLOAT32, BadRowsError
from embtables.schema import DenseColumn, Model, Schema

Float64s = npt.NDArray[np.float64]

SAMPLE_ROWS = 1_000_000
NUM_QUANTILES = 1_000


Number = Annotated[float, Field(strict=True)]  # finite, as every float of a Model
Positive = Annotated[float, Field(strict=True, gt=0.0)]


class TransformsContent(Model):
    """Fitted transforms as JSON: what `FittedTransforms.to_json` writes, and `FittedTransforms.of` reads.

    Attributes:
        moments: by dense column mean and standard deviation.
        quantiles: by dense column values that ascend.
        buckets: by feature inner boundaries, each above the one before.
    """

    moments: dict[str, tuple[Number, Positive]] = Field(default_factory=dict)
    quantiles: dict[str, tuple[Number, ...]] = Field(default_factory=dict)
    buckets: dict[str, tuple[Number, ...]] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _ascends(self) -> TransformsContent:
        for name, values in self.quantiles.items():
            if any(a > b for a, b in pairwise(values)):
                raise ValueError(f"quantiles.{name}: the values do not ascend")
        for name, values in self.buckets.items():
            if any(a >= b for a, b in pairwise(values)):
                raise ValueError(f"buckets.{name}: a boundary is not above the one before")
        return self

    def check(self, schema: Schema) -> None:
        """Raises ValueError if they are not the transforms of this schema."""
        buckets = {f.name: f.num_buckets for f in schema.features if f.num_buckets is not None}
        wanted = {
            "moments": {d.column for d in schema.dense if "standardise" in d.transforms},
            "quantiles": {d.column for d in schema.dense if "quantile" in d.transforms},
            "buckets": set(buckets),
        }
        for what, names in wanted.items():
            for name in sorted(names ^ getattr(self, what).keys()):
                raise ValueError(f"{what}.{name}: {'is missing' if name in names else 'nothing in the schema has it'}")
        for name, count in buckets.items():
            if len(self.buckets[name]) >= count:
                raise ValueError(f"buckets.{name}: {count} buckets have at most {count - 1} boundaries between them")


@dataclass(frozen=True)
class FittedTransforms:
    """What was fitted: mean and standard deviation, quantiles by dense column, bucket boundaries by feature."""

    moments: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    quantiles: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    buckets: Mapping[str, tuple[float, ...]] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Plain lists and numbers."""
        return {
            "moments": {name: list(value) for name, value in self.moments.items()},
            "quantiles": {name: list(value) for name, value in self.quantiles.items()},
            "buckets": {name: list(value) for name, value in self.buckets.items()},
        }

    @classmethod
    def of(cls, content: TransformsContent) -> FittedTransforms:
        """Reads what `to_json` wrote."""
        return cls(content.moments, content.quantiles, content.buckets)

    def apply(self, dense: DenseColumn, values: Float64s) -> Float64s:
        """The dense column's transforms, in order: (n,) float64 -> (n,) float64, infinite where it cannot hold one."""
        if not dense.transforms:
            return values
        with np.errstate(over="ignore"):
            return self._applied(dense, values)

    def apply_together(self, dense: Sequence[DenseColumn], values: Float64s) -> Float64s | None:
        """The same of m columns with equal transforms, (m, n) finite float64; None: take them one by one.

        A request has few rows, so that a call for each column would take longer than its numbers.
        """
        for transform in dense[0].transforms:
            if transform == "log1p" and (values > -1.0).all():
                values = np.log1p(values)
            elif transform == "standardise":
                moments = np.array([self._of(self.moments, each.column) for each in dense])
                with np.errstate(over="ignore"):
                    values = (values - moments[:, :1]) / moments[:, 1:]
            else:
                return None
        return values

    def _applied(self, dense: DenseColumn, values: Float64s) -> Float64s:
        for transform in dense.transforms:
            if transform == "log1p":
                values = log1p(dense.column, values)
            elif transform == "standardise":
                mean, std = self._of(self.moments, dense.column)
                values = (values - mean) / std
            else:
                points = np.asarray(self._of(self.quantiles, dense.column))
                low = np.searchsorted(points, values, side="left")
                high = np.searchsorted(points, values, side="right")
                values = 0.5 * (low + high) / len(points)
        return values

    def boundaries(self, feature: str) -> Float64s:
        """Bucket boundaries of a feature with `num_buckets`."""
        return np.asarray(self._of(self.buckets, feature))

    def _of(self, values: Mapping[str, Any], name: str) -> Any:
        if name not in values:
            raise StateError(f"no transform was fitted for '{name}'; fit on the training part first")
        return values[name]


def log1p(column: str, values: Float64s) -> Float64s:
    """ln(1 + x). Raises BadRowsError if x <= -1."""
    wrong = np.flatnonzero(values <= -1.0)
    if len(wrong):
        raise BadRowsError(f"holds {values[wrong[0]]}; log1p needs values above -1", column, wrong)
    return np.log1p(values)


class Moments:
    """Streaming mean and standard deviation (Chan, Golub and LeVeque 1979, eq. 2.1)."""

    def __init__(self) -> None:
        self.count, self.mean, self.squares = 0, 0.0, 0.0

    def add(self, values: Float64s) -> None:
        """Adds values (n,)."""
        if len(values) == 0:
            return
        n, mean = len(values), float(values.mean())
        squares = float(((values - mean) ** 2).sum())
        delta, total = mean - self.mean, self.count + n
        self.squares += squares + delta * delta * self.count * n / total
        self.mean += delta * n / total
        self.count = total

    def result(self) -> tuple[float, float]:
        """(mean, std); std is 1 for a constant column, so that it becomes zeros."""
        std = (self.squares / self.count) ** 0.5 if self.count else 0.0
        return self.mean, std if std > 0.0 else 1.0


class Sample:
    """A uniform sample of a stream in bounded memory: the rows with the smallest seeded random tags are kept."""

    def __init__(self, seed: int, limit: int = SAMPLE_ROWS) -> None:
        self._random = np.random.default_rng(seed)
        self._limit = limit
        self._values = np.empty(0)
        self._tags = np.empty(0)

    def add(self, values: Float64s) -> None:
        """Adds values (n,)."""
        self._values = np.concatenate([self._values, values])
        self._tags = np.concatenate([self._tags, self._random.random(len(values))])
        if len(self._values) > self._limit:
            kept = np.argpartition(self._tags, self._limit)[: self._limit]
            kept.sort()
            self._values, self._tags = self._values[kept], self._tags[kept]

    def quantiles(self, count: int) -> tuple[float, ...]:
        """`count` values at evenly spaced ranks, ascending."""
        if len(self._values) == 0:
            return ()
        ranks = np.linspace(0.0, 1.0, count)
        return tuple(float(v) for v in np.quantile(self._values, ranks, method="inverted_cdf"))

    def boundaries(self, num_buckets: int) -> tuple[float, ...]:
        """Distinct inner boundaries that part the sample into at most `num_buckets` equal parts."""
        if len(self._values) == 0:
            return ()
        ranks = np.linspace(0.0, 1.0, num_buckets + 1)[1:-1]
        return tuple(float(v) for v in np.unique(np.quantile(self._values, ranks)))


class TransformFitter:
    """Accumulates what a schema's transforms need, table by table."""

    def __init__(self, schema: Schema, seed: int) -> None:
        self._dense = [d for d in schema.dense if {"standardise", "quantile"} & set(d.transforms)]
        self._buckets = [f for f in schema.features if f.num_buckets is not None]
        self._moments = {d.column: Moments() for d in self._dense if "standardise" in d.transforms}
        self._samples = {d.column: Sample(seed) for d in self._dense if "quantile" in d.transforms}
        self._bucket_samples = {f.name: Sample(seed) for f in self._buckets}

    @property
    def columns(self) -> tuple[str, ...]:
        """The log columns that fitting reads; none: nothing needs fitting."""
        names = [d.column for d in self._dense] + [f.column for f in self._buckets if f.column is not None]
        return tuple(dict.fromkeys(names))

    def add(self, numbers: Mapping[str, Float64s]) -> None:
        """Adds the rows of one table: finite values by column, nulls filled or left out."""
        for dense in self._dense:
            values = numbers[dense.column]
            for transform in dense.transforms:
                # What a transform cannot take is left out here: the training pass reports it, or sets it aside.
                if transform == "log1p":
                    values = log1p(dense.column, values[values > -1.0])
                elif transform == "standardise":
                    self._moments[dense.column].add(values[np.abs(values) <= MAX_FLOAT32])
                else:
                    self._samples[dense.column].add(values)
        for feature in self._buckets:
            assert feature.column is not None
            self._bucket_samples[feature.name].add(numbers[feature.column])

    def result(self) -> FittedTransforms:
        """What was fitted."""
        return FittedTransforms(
            {name: moments.result() for name, moments in self._moments.items()},
            {name: sample.quantiles(NUM_QUANTILES) for name, sample in self._samples.items()},
            {
                f.name: self._bucket_samples[f.name].boundaries(f.num_buckets)
                for f in self._buckets
                if f.num_buckets is not None
            },
        )
