"""Features, labels and dense columns as configured: what a column of the log means to the model."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal
from zoneinfo import available_timezones

from pydantic import BeforeValidator, Field, PositiveInt, model_validator

from embtables.schema.base import Model, Name
from embtables.schema.condition import literal_text
from embtables.schema.encoders import ENCODERS, EncoderConfig, Hash

_INTEGER = re.compile(r"-?(0|[1-9][0-9]*)")


def _null_id(value: Any) -> Any:
    """A literal that is an integer as one."""
    text = literal_text(value)
    if not (isinstance(text, str) and _INTEGER.fullmatch(text)):
        return text
    number = int(text) if len(text) <= 20 else 2**64
    if not -(2**63) <= number < 2**64:
        raise ValueError("an id has 64 bits: -2^63 to 2^64 - 1")
    return number


TimestampPart = Literal["hour", "weekday", "day", "month", "day_number"]
Side = Literal["user", "item", "context"]


class Feature(Model):
    """A categorical feature: a column (or a cross of columns) whose ids look rows up in a table.

    A null id is an absent id: the row's list is empty and pools to zeros, unless `null_id` stands in for it.

    Example:
        >>> import embtables
        >>> embtables.Feature(name="history", table="item", pooling="mean", max_length=50).columns
        ('history',)
        >>> embtables.Feature(name="user_hour", cross=("user", "hour"), table="pair").columns
        ('user', 'hour')
    """

    name: Name
    column: str | None = Field(None, description="the log's column; by default the feature's name")
    cross: tuple[str, ...] | None = Field(
        None, description="two or more columns; each combination of their ids is one id"
    )
    table: Name = Field(description="the table that its keys look up; several features may share one")
    encoder: Annotated[EncoderConfig, ENCODERS] = Hash()
    pooling: Literal["sum", "mean", "none"] = Field(
        "sum", description="how the rows of a list become one vector; none: a sequence"
    )
    max_length: PositiveInt | None = Field(None, description="ids per row; the last ones are kept")
    weights_column: str | None = Field(None, description="list<float> column with one weight per id")
    split: Annotated[str, Field(min_length=1)] | None = Field(
        None, description="separator that splits a string into a list: '|' for 'A|B'"
    )
    timestamp_part: TimestampPart | None = Field(None, description="part of a timestamp column used as the id (UTC)")
    num_buckets: Annotated[int, Field(ge=2, le=65536)] | None = Field(
        None,
        description="quantile buckets of a numeric column, fitted on the training part; the bucket's number is the id",
    )
    # Written only where it is chosen: what a schema without it writes, and its hash, stay as they were before it.
    timestamp_zone: str | None = Field(
        None,
        description="time zone of timestamp_part, such as Asia/Tokyo; by default UTC, whatever zone the column has",
        exclude_if=lambda zone: zone is None,
    )
    null_id: Annotated[int | str | None, BeforeValidator(_null_id)] = Field(
        None,
        description="the id that stands for a null (or for a null list); without it a null is an absent id and pools "
        "to zeros",
    )
    side: Side = Field(
        "context",
        description="what it describes: user (who asks), item (what is offered), context (neither); retrieval reads it",
    )

    @model_validator(mode="before")
    @classmethod
    def _default_column(cls, value: Any) -> Any:
        if isinstance(value, dict) and value.get("column") is None and value.get("cross") is None and "name" in value:
            return {**value, "column": value["name"]}
        return value

    @model_validator(mode="after")
    def _check(self) -> Feature:
        if self.cross is not None:
            if self.column is not None:
                raise ValueError("give 'column' or 'cross', not both")
            if len(self.cross) < 2 or len(set(self.cross)) != len(self.cross):
                raise ValueError("'cross' needs two or more different columns")
            single = ("split", "timestamp_part", "num_buckets", "weights_column", "null_id")
            for option in single:
                if getattr(self, option) is not None:
                    raise ValueError(f"'{option}' does not go with 'cross': cross plain id columns")
        if self.timestamp_zone is not None:
            if self.timestamp_part is None:
                raise ValueError("'timestamp_zone' goes with 'timestamp_part'")
            if self.timestamp_zone not in available_timezones():
                raise ValueError(
                    f"'timestamp_zone' names no time zone: '{self.timestamp_zone}'; for example Asia/Tokyo"
                )
        derived = [o for o in ("split", "timestamp_part", "num_buckets") if getattr(self, o) is not None]
        if len(derived) > 1:
            raise ValueError(f"'{derived[0]}' and '{derived[1]}' exclude each other")
        return self

    @property
    def columns(self) -> tuple[str, ...]:
        """The log columns this feature reads, weights column included."""
        ids = self.cross if self.cross is not None else (self.column or self.name,)
        return ids if self.weights_column is None else (*ids, self.weights_column)


class DenseColumn(Model):
    """A numeric column that enters the model as a float32, after its transforms in the order given.

    log1p: x -> ln(1 + x), x > -1. standardise: (x - mean) / std of the training part.
    quantile: x -> its rank among the training part's values, in [0, 1].
    """

    column: str = Field(description="the log's column")
    transforms: tuple[Literal["log1p", "standardise", "quantile"], ...] = Field(
        (), description="applied in this order; fitted on the training part"
    )
    fill_null: float | None = Field(None, description="value (before transforms) that stands for a null")
    fill_nan: float | None = Field(
        None,
        description="value (before transforms) that stands for a NaN; by default a NaN is a bad value",
        exclude_if=lambda value: value is None,
    )

    @model_validator(mode="after")
    def _check(self) -> DenseColumn:
        if len(set(self.transforms)) != len(self.transforms):
            raise ValueError("a transform is named twice")
        if "quantile" in self.transforms and self.transforms != ("quantile",):
            raise ValueError("'quantile' stands alone: ranks do not change under other transforms")
        return self


class Label(Model):
    """What the model predicts: a 0/1 column, or `column > positive_above`."""

    column: str = Field(description="the log's column")
    name: Name | None = Field(None, description="the label's name; by default the column's name")
    positive_above: float | None = Field(
        None, description="a value above it is a positive; by default the column holds 0 and 1, or booleans"
    )


class EventTime(Model):
    """When the row happened: a timestamp column, or an integer column with its unit."""

    column: str = Field(description="the log's column: a timestamp, or an integer with its unit")
    unit: Literal["s", "ms", "us", "ns"] | None = Field(None, description="unit of an integer column")
