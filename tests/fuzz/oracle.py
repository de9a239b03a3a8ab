"""What a log says, read value by value: the rules of docs/data-rules.md written a second time, slowly.

This file takes nothing from the package. A row is what training must see of it; a bad row is a value without meaning;
`Unreadable` is a log that must be refused whatever its rows hold.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.parquet as pq

from tests.fuzz.values import (
    DAY,
    NUMBERS,
    PER_SECOND,
    BadValue,
    Column,
    Unreadable,
    check_role,
    dense_value,
    feature_ids,
    finite,
    holds,
    instant,
    label_value,
    literal,
    one_family,
    plain_ids,
    same_keys,
    time_value,
)


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


def family(kind: pa.DataType) -> str:
    """The family of an Arrow type."""
    t = pa.types
    if isinstance(kind, pa.BaseExtensionType):
        return family(kind.storage_type)
    if t.is_dictionary(kind):
        return family(kind.value_type)
    if t.is_list(kind) or t.is_large_list(kind) or t.is_fixed_size_list(kind) or t.is_list_view(kind):
        return f"list:{family(kind.value_type)}"
    checks: list[tuple[str, Callable[[Any], bool]]] = [
        ("null", t.is_null),
        ("bool", t.is_boolean),
        ("int", t.is_integer),
        ("float", t.is_floating),
        ("text", lambda k: t.is_string(k) or t.is_large_string(k) or t.is_string_view(k)),
        ("bytes", lambda k: t.is_binary(k) or t.is_large_binary(k) or t.is_binary_view(k) or t.is_fixed_size_binary(k)),
        ("time", lambda k: t.is_timestamp(k) or t.is_date(k)),
    ]
    for name, check in checks:
        if check(kind):
            return name
    if t.is_decimal(kind):
        return "decimal" if kind.scale == 0 else "fraction"
    return "odd"


def python_values(array: pa.Array) -> list[Any]:
    """Each value: text as bytes, times as microseconds (whole, towards the past), numbers as Python has them."""
    kind, t = array.type, pa.types
    if isinstance(kind, pa.BaseExtensionType):
        return python_values(array.storage)
    if t.is_dictionary(kind):
        words = python_values(array.dictionary)
        return [None if i is None or words[i] is None else words[i] for i in array.indices.to_pylist()]
    name = family(kind)
    if name.startswith("list:"):
        return [None if item is None else python_values(item) for item in _items(array)]
    if name == "text":
        return array.cast(pa.binary()).to_pylist() if not t.is_string_view(kind) else _view_bytes(array)
    if name == "time":
        return _microseconds(array)
    if name == "bool":
        return [None if v is None else int(v) for v in array.to_pylist()]
    if name == "float":
        return [None if v is None else float(v) for v in array.to_pylist()]
    return array.to_pylist()


def _items(array: pa.Array) -> Iterable[pa.Array | None]:
    for scalar in array:
        yield scalar.values if scalar.is_valid else None


def _view_bytes(array: pa.Array) -> list[bytes | None]:
    return array.view(pa.binary_view()).to_pylist()


def _microseconds(array: pa.Array) -> list[int | None]:
    kind = array.type
    if pa.types.is_date32(kind):
        return [None if v is None else v * DAY for v in array.view(pa.int32()).to_pylist()]
    per_second = 1_000 if pa.types.is_date64(kind) else PER_SECOND[kind.unit]
    return [None if v is None else v * 1_000_000 // per_second for v in array.view(pa.int64()).to_pylist()]


class Oracle:
    """A log and its configuration (the parsed YAML)."""

    def __init__(self, config: dict[str, Any], root: Path) -> None:
        self.config = config
        self.data = config["data"]
        self.files: list[tuple[str, pa.Table, dict[str, str | None]]] = []
        log = root / "log"
        for path in sorted(log.rglob("*.parquet"), key=lambda p: p.relative_to(log).as_posix()):
            folders: dict[str, str | None] = {}
            for part in path.relative_to(log).parts[:-1]:
                name, _, value = part.partition("=")
                folders[unquote(name)] = None if value == "__HIVE_DEFAULT_PARTITION__" else unquote(value)
            # INT96 of the year 9999 is beyond nanoseconds, which are pyarrow's default.
            stored = pq.ParquetFile(path, coerce_int96_timestamp_unit="us").read()
            self.files.append((str(path), stored, folders))
        self.places = [(file, row) for file, table, _ in self.files for row in range(table.num_rows)]
        self.side: dict[str, Column] = {}
        for join in self.data.get("join", []):
            self._join(join, root)

    def _join(self, join: dict[str, Any], root: Path) -> None:
        table = pq.ParquetFile(root / "log" / join["path"]).read()
        keys = python_values(_one(table.column(join["key"])))
        ours = self.column(join["key"], ids=True)
        theirs = family(table.schema.field(join["key"]).type)
        if "null" not in (ours.family, theirs) and not same_keys(ours.family, theirs):
            raise Unreadable(f"the key {join['key']} has two types")
        rows = {key: i for i, key in enumerate(keys)}
        for name in table.column_names:
            if name != join["key"]:
                values = python_values(_one(table.column(name)))
                found = [None if key is None or key not in rows else values[rows[key]] for key in ours.values]
                if join.get("on_missing") != "null" and any(key not in rows for key in ours.values):
                    raise Unreadable(f"a key of {join['key']} is missing")
                self.side[name] = Column(family(table.schema.field(name).type), found)

    def column(self, name: str, *, ids: bool) -> Column:
        """A column of all files, under the rule for types that differ."""
        if name in self.side:
            return self.side[name]
        families: list[str] = []
        values: list[Any] = []
        for file, table, folders in self.files:
            if name in folders:
                text = folders[name]
                families.append("text")
                values += [None if text is None else text.encode()] * table.num_rows
                continue
            found = _field(table, name)
            if found is None:
                raise Unreadable(f"{name} is missing in {file}")
            array, alive = found
            families.append(family(array.type))
            values += [v if a else None for v, a in zip(python_values(array), alive, strict=True)]
        return Column(one_family(name, families, ids=ids), values)

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
        admitted = [True] * len(self.places)
        for text in self.data.get("where", []):
            name, op, literal = text.split(" ", 2)
            column = self.column(name, ids=False)
            for row, value in enumerate(column.values):
                admitted[row] &= holds(column.family, value, op, literal)
        return admitted

    def _parts(self) -> list[Any] | None:
        """Of each row its part, "" for none, or why its part cannot be known. None: no split (or by hash)."""
        split = self.data.get("split")
        if split is None:
            return None
        if split["kind"] == "hash":
            return self._hashed(split["columns"])
        if split["kind"] == "column":
            column = self.column(split["column"], ids=False)
            named = [(p, text) for p in ("train", "validation", "test") for text in split[p]]
            return [
                next((p for p, text in named if v is not None and holds(column.family, v, "==", literal(text))), "")
                for v in column.values
            ]
        spec, found = self.config["event_time"], []
        first = instant(split["test_from"])
        for value in self._time().values:
            try:
                found.append("test" if time_value(spec, self._time().family, value) >= first else "train")
            except BadValue as bad:
                found.append(bad)
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


def _one(column: pa.ChunkedArray) -> pa.Array:
    # Dictionaries of several row groups differ; values one after the other do not.
    if pa.types.is_dictionary(column.type):
        column = pa.chunked_array([c.dictionary.take(c.indices) for c in column.chunks], column.type.value_type)
    return pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)


def _field(table: pa.Table, name: str) -> tuple[pa.Array, list[bool]] | None:
    """A column, or the field of a struct by its path; and where the struct is no null."""
    if name in table.column_names:
        return _one(table.column(name)), [True] * table.num_rows
    top, _, rest = name.partition(".")
    if rest and top in table.column_names and pa.types.is_struct(table.schema.field(top).type):
        struct = _one(table.column(top))
        names = [f.name for f in struct.type]
        if rest in names:
            return struct.field(names.index(rest)), struct.is_valid().to_pylist()
    return None
