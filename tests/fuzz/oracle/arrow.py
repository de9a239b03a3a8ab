"""Arrow columns as Python values, by family."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pyarrow as pa

from tests.fuzz.oracle.values import DAY, PER_SECOND


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


def one_array(column: pa.ChunkedArray) -> pa.Array:
    """The chunks as one array, without dictionaries."""
    # Dictionaries of several row groups differ; values one after the other do not.
    if pa.types.is_dictionary(column.type):
        column = pa.chunked_array([c.dictionary.take(c.indices) for c in column.chunks], column.type.value_type)
    return pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)


def field_of(table: pa.Table, name: str) -> tuple[pa.Array, list[bool]] | None:
    """A column, or the field of a struct by its path; and where the struct is no null."""
    if name in table.column_names:
        return one_array(table.column(name)), [True] * table.num_rows
    top, _, rest = name.partition(".")
    if rest and top in table.column_names and pa.types.is_struct(table.schema.field(top).type):
        struct = one_array(table.column(top))
        names = [f.name for f in struct.type]
        if rest in names:
            return struct.field(names.index(rest)), struct.is_valid().to_pylist()
    return None
