"""The data section: where the log lies, what is joined to it, which rows count, and in what order they come."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, PositiveInt, model_validator

from embtables.schema.base import Model
from embtables.schema.condition import Condition, LiteralText
from embtables.schema.prepare import SampledNegatives

# YAML reads a bare `null` as no value at all; here it is the word.
ErrorOrNull = Annotated[
    Literal["error", "null"],
    BeforeValidator(
        lambda value: "null" if value is None else value, json_schema_input_type=Literal["error", "null"] | None
    ),
]


class Join(Model):
    """A side table (users, items) whose columns are looked up by key; small enough for memory."""

    path: str = Field(description="file, folder or glob, relative to data.path, or a URI")
    key: str = Field(description="the log's column that is looked up")
    side_key: str | None = Field(None, description="the side table's key column; by default the same name")
    columns: tuple[str, ...] | None = Field(None, description="columns to take; by default all")
    prefix: str = Field("", description="put before the names of the columns taken")
    on_missing: ErrorOrNull = Field(
        "error", description="what happens to a key of the log that the side table lacks, or that is null"
    )

    @model_validator(mode="after")
    def _check(self) -> Join:
        names = self.columns or ()
        twice = [name for name in names if names.count(name) > 1]
        if twice:
            raise ValueError(f"'columns' names '{twice[0]}' twice")
        return self


class TimeSplit(Model):
    """Rows before `validation_from` train, rows from `test_from` on test; needs event_time."""

    kind: Literal["time"] = "time"
    validation_from: datetime | None = Field(None, description="first time of the validation part")
    test_from: datetime | None = Field(None, description="first time of the test part")

    @model_validator(mode="after")
    def _check(self) -> TimeSplit:
        if self.validation_from is None and self.test_from is None:
            raise ValueError("give 'validation_from' or 'test_from'")
        if self.validation_from and self.test_from and not _utc(self.validation_from) < _utc(self.test_from):
            raise ValueError("'validation_from' must come before 'test_from'")
        return self


def _utc(moment: datetime) -> datetime:
    """A moment without a zone is UTC."""
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


class ColumnSplit(Model):
    """Rows go to the part whose list holds the column's value; other rows to none."""

    kind: Literal["column"] = "column"
    column: str = Field(description="the log's column that names the part")
    train: tuple[LiteralText, ...] = Field(("train",), description="its values that mean the training part")
    validation: tuple[LiteralText, ...] = Field(("validation",), description="its values that mean the validation part")
    test: tuple[LiteralText, ...] = Field(("test",), description="its values that mean the test part")


class HashSplit(Model):
    """Rows go to a part by a seeded hash of `columns`: the same row goes to the same part in any file order."""

    kind: Literal["hash"] = "hash"
    columns: Annotated[tuple[str, ...], Field(min_length=1)] = Field(
        description="columns whose values decide the part of a row"
    )
    seed: Annotated[int, Field(ge=0, lt=2**63)] = Field(0, description="seed of the hash")
    validation: Annotated[float, Field(ge=0.0, lt=1.0)] = Field(
        0.1, description="share of the rows in the validation part"
    )
    test: Annotated[float, Field(ge=0.0, lt=1.0)] = Field(0.1, description="share of the rows in the test part")

    @model_validator(mode="after")
    def _check(self) -> HashSplit:
        if self.validation + self.test >= 1.0:
            raise ValueError("validation + test must leave rows to train on (below 1.0)")
        return self


Split = Annotated[TimeSplit | ColumnSplit | HashSplit, Field(discriminator="kind")]


class Shuffle(Model):
    """Training rows in seeded random order: chunks (row groups) of all files, then rows within a buffer."""

    seed: Annotated[int, Field(ge=0, lt=2**63)] = Field(0, description="seed of the order")
    buffer_rows: PositiveInt = Field(262_144, description="rows held in memory and shuffled together")


class LogParts(Model):
    """A log whose parts lie apart: each a folder, file, glob or URI."""

    train: str = Field(description="rows to train on")
    validation: str | None = Field(None, description="rows that are evaluated between training steps")
    test: str | None = Field(None, description="rows that the finished run is evaluated on")

    def given(self) -> dict[str, str]:
        """The paths that are given, by part."""
        paths = {"train": self.train, "validation": self.validation, "test": self.test}
        return {part: path for part, path in paths.items() if path is not None}


PartitionType = Literal["string", "int64", "float64", "bool", "date", "timestamp"]


class LogConfig(Model):
    """Where rows of a parquet log come from, which of them count, and in what order they come.

    A relative path is relative to the configuration file (on the command line: to the working folder).
    """

    path: str | None = Field(None, description="folder, file, glob, or any pyarrow.fs URI (s3://..., gs://...)")
    parts: LogParts | None = Field(
        None, description="instead of path and split: train, validation and test given as files or folders of their own"
    )
    files: str = Field("**/*.parquet", description="glob of the log's files below a folder; k=v folders become columns")
    partitions: dict[str, PartitionType] = Field(
        default_factory=dict,
        description="types of columns that folders (k=v) give; by default their values are text",
    )
    prepare: SampledNegatives | None = Field(None, description="makes examples of a purchase-only log")
    join: tuple[Join, ...] = ()
    where: tuple[Condition, ...] = Field((), description="conditions that all must hold, joined columns included")
    split: Split | None = None
    shuffle: Shuffle | None = Field(
        None,
        description="training rows in seeded random order: chunks (row groups) of all files, then rows within a "
        "buffer; by default rows come in file order",
    )
    block_rows: PositiveInt = Field(131_072, description="rows read and converted at a time")
    on_missing_column: ErrorOrNull = Field(
        "error", description="a column that some files of the log lack, but not all: error, or nulls in their rows"
    )
    on_bad_file: Literal["error", "quarantine"] = Field(
        "error", description="a file that cannot be read: error, or skipped, counted and listed"
    )
    on_bad_row: Literal["error", "quarantine"] = Field(
        "error", description="a row whose value has no meaning: error, or skipped, counted and written aside"
    )

    def paths(self) -> list[str]:
        """Where the log lies: its path, or those of its parts."""
        return [self.path] if self.path is not None else list(self.parts.given().values()) if self.parts else []

    @model_validator(mode="after")
    def _one_way(self) -> LogConfig:
        if (self.path is None) == (self.parts is None):
            raise ValueError("give 'path', the log's folder, or 'parts', a path for each part")
        if self.parts is not None:
            for option in ("split", "prepare"):
                if getattr(self, option) is not None:
                    raise ValueError(f"'{option}' does not go with 'parts', which are divided already")
        return self
