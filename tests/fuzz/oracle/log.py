"""What a log says, read value by value: the rules of docs/data-rules.md written a second time, slowly.

This file takes nothing from the package. A row is what training must see of it; a bad row is a value without meaning;
`Unreadable` is a log that must be refused whatever its rows hold.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tests.fuzz.oracle.arrow import family, field_of, python_values
from tests.fuzz.oracle.folders import folder_texts, folder_types, folder_value
from tests.fuzz.oracle.joins import side_columns
from tests.fuzz.oracle.literals import admits, condition, same, str_of
from tests.fuzz.oracle.values import (
    NUMBERS,
    BadValue,
    Column,
    Unreadable,
    check_role,
    dense_value,
    feature_ids,
    finite,
    instant,
    label_value,
    one_family,
    plain_ids,
    time_value,
)


@dataclass(frozen=True)
class File:
    """A file of the log: what its folders say, and the part that it was given as."""

    path: str
    table: pa.Table
    folders: dict[str, str | None]
    part: str | None


@dataclass
class Row:
    """What training sees of a row. `ids`: of each feature its ids and their weights; crosses are tuples."""

    place: tuple[str, int]
    part: str | None
    ids: list[tuple[list[Any], list[float] | None]] = field(default_factory=list)
    dense: list[float] = field(default_factory=list)
    labels: list[float] = field(default_factory=list)
    weight: float | None = None
    time: int | None = None


@dataclass
class Reading:
    """The good rows in the order of the log, and the bad ones with the columns that may be named."""

    rows: list[Row] = field(default_factory=list)
    bad: dict[tuple[str, int], set[str]] = field(default_factory=dict)
    bad_parts: dict[tuple[str, int], str | None] = field(default_factory=dict)


class Oracle:
    """A log and its configuration (the parsed YAML)."""

    def __init__(self, config: dict[str, Any], root: Path) -> None:
        self.config = config
        self.data = config["data"]
        self.files: list[File] = []
        self._folder_types = folder_types(config)
        parts = self.data.get("parts") or {None: self.data["path"]}
        for part, path in parts.items():
            self._open(root / path, part)
        self.names = {name for file in self.files for name in (*file.table.column_names, *file.folders)}
        self.places = [(file.path, row) for file in self.files for row in range(file.table.num_rows)]
        self.side: dict[str, Column] = {}
        base = root if "parts" in self.data else root / self.data["path"]
        self.side = side_columns(self, self.data.get("join", []), base)

    def _open(self, log: Path, part: str | None) -> None:
        for path in sorted(log.rglob("*.parquet"), key=lambda p: p.relative_to(log).as_posix()):
            # INT96 of the year 9999 is beyond nanoseconds, which are pyarrow's default.
            stored = pq.ParquetFile(path, coerce_int96_timestamp_unit="us").read()
            self.files.append(File(str(path), stored, folder_texts(path.relative_to(log)), part))

    def column(self, name: str, *, ids: bool) -> Column:
        """A column of all files, under the rule for types that differ."""
        if name in self.side:
            return self.side[name]
        families: list[str] = []
        values: list[Any] = []
        lacking = False
        for file in self.files:
            if name in file.folders:
                kind, value = self._folder_value(name, file)
                families.append(kind)
                values += [value] * file.table.num_rows
                continue
            found = field_of(file.table, name)
            if found is None:
                if self.data.get("on_missing_column") != "null":
                    raise Unreadable(f"{name} is missing in {file.path}")
                lacking = True
                values += [None] * file.table.num_rows
                continue
            array, alive = found
            families.append(family(array.type))
            values += [v if a else None for v, a in zip(python_values(array), alive, strict=True)]
        if lacking and not families:
            raise Unreadable(f"{name} is nowhere")
        return Column(one_family(name, families, ids=ids), values)

    def _folder_value(self, name: str, file: File) -> tuple[str, Any]:
        return folder_value(self._folder_types.get(name, "string"), file.folders[name])

    def read(self) -> Reading:
        """All rows that `where` admits, each with its part."""
        admitted = self._admitted()
        parts = self._parts()
        columns = [(f, self._feature_columns(f)) for f in self.config["features"]]
        numbers = self._number_columns()
        reading = Reading()
        for row, place in enumerate(self.places):
            if not admitted[row]:
                continue
            try:
                part = parts[row] if parts is not None else None
                if isinstance(part, BadValue):
                    raise part
                if part == "":
                    continue
                reading.rows.append(self._row(row, place, part, columns, numbers))
            except BadValue as bad:
                reading.bad[place] = {bad.column}
                reading.bad_parts[place] = (
                    None if isinstance(parts[row] if parts else None, BadValue) else (parts[row] if parts else None)
                )
        return reading

    def _row(self, row: int, place: Any, part: str | None, columns: Any, numbers: dict[str, Column]) -> Row:
        found = Row(place, part)
        for feature, of_feature in columns:
            found.ids.append(feature_ids(feature, of_feature, row))
        for spec in self.config.get("dense", []):
            found.dense.append(dense_value(spec, numbers[spec["column"]].values[row]))
        for spec in self.config["labels"]:
            found.labels.append(label_value(spec, numbers[spec["column"]].values[row]))
        weight = self.config.get("sample_weight")
        if weight is not None:
            found.weight = finite(weight, numbers[weight].values[row])
            if found.weight < 0:
                raise BadValue(weight, "is negative")
        time = self.config.get("event_time")
        if time is not None:
            found.time = time_value(time, self._time().family, self._time().values[row])
        return found

    def _feature_columns(self, feature: dict[str, Any]) -> list[Column]:
        names = feature.get("cross") or [feature.get("column") or feature["name"]]
        columns = [self.column(name, ids="num_buckets" not in feature) for name in names]
        for name, column in zip(names, columns, strict=True):
            check_role(feature, name, column.family)
        if "weights_column" in feature:
            weights = self.column(feature["weights_column"], ids=False)
            inner = weights.family.removeprefix("list:")
            if inner not in (*NUMBERS, "null"):
                raise Unreadable(f"{feature['weights_column']} is no number")
            columns.append(weights)
        return columns

    def _number_columns(self) -> dict[str, Column]:
        names = [s["column"] for s in [*self.config.get("dense", []), *self.config["labels"]]]
        names += [self.config["sample_weight"]] if "sample_weight" in self.config else []
        found = {name: self.column(name, ids=False) for name in names}
        for name, column in found.items():
            if column.family not in (*NUMBERS, "null"):
                raise Unreadable(f"{name} is no number")
        if "event_time" in self.config:
            self._time()
        return found

    def _time(self) -> Column:
        if not hasattr(self, "_time_column"):
            spec = self.config["event_time"]
            column = self.column(spec["column"], ids=True)
            if column.family != "time" and not (column.family == "int" and "unit" in spec):
                raise Unreadable(f"{spec['column']} is no time")
            self._time_column = column
        return self._time_column

    def _admitted(self) -> list[bool]:
        return self.satisfying(self.data.get("where", []))

    def satisfying(self, conditions: list[str]) -> list[bool]:
        """Of each row whether all conditions hold."""
        found = [True] * len(self.places)
        for text in conditions:
            column = self.column(condition(text)[0], ids=False)
            found = [a and b for a, b in zip(found, admits(text, column), strict=True)]
        return found

    def _parts(self) -> list[Any] | None:
        """Of each row its part, "" for none, or why its part cannot be known. None: no split (or by hash)."""
        if "parts" in self.data:
            return [file.part for file in self.files for _ in range(file.table.num_rows)]
        split = self.data.get("split")
        if split is None:
            return None
        if split["kind"] == "hash":
            return self._hashed(split["columns"])
        if split["kind"] == "column":
            return self._by_column(split)
        return self._by_time(split)

    def _by_time(self, split: dict[str, Any]) -> list[Any]:
        spec, found = self.config["event_time"], []
        firsts = [(part, instant(split[f"{part}_from"])) for part in ("test", "validation") if f"{part}_from" in split]
        for value in self._time().values:
            try:
                time = time_value(spec, self._time().family, value)
                found.append(next((part for part, first in firsts if time >= first), "train"))
            except BadValue as bad:
                found.append(bad)
        return found

    def _by_column(self, split: dict[str, Any]) -> list[Any]:
        column = self.column(split["column"], ids=False)
        if column.family.startswith("list:") or column.family == "odd":
            raise Unreadable(f"{split['column']} is {column.family}")
        found = [""] * len(self.places)
        for part in ("test", "validation", "train"):
            for text in split.get(part, [part]):
                # The word that stands for a part by default is no number, and nothing equals it.
                if part in split or column.family in ("text", "bytes"):
                    found = [part if s else p for p, s in zip(found, same(column, str_of(text)), strict=True)]
        return found

    def _hashed(self, names: list[str]) -> list[Any]:
        """Nothing is known of the parts but which rows have none, because their values are no ids."""
        found: list[Any] = [None] * len(self.places)
        for name in names:
            column = self.column(name, ids=True)
            check_role({"name": name}, name, column.family)
            for row, value in enumerate(column.values):
                try:
                    plain_ids({"name": name}, name, column, value)
                except BadValue as bad:
                    found[row] = bad
        return found
