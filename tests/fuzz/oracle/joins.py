"""Side tables beside the package's: rows are looked up by key, one after the other."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from tests.fuzz.oracle.arrow import family, one_array, python_values
from tests.fuzz.oracle.values import EXACT, Column, Unreadable, one_family, same_keys, signed

if TYPE_CHECKING:
    from tests.fuzz.oracle.log import Oracle


def side_columns(log: Oracle, joins: list[dict[str, Any]], base: Path) -> dict[str, Column]:
    """The columns that all side tables add.

    Args:
        base: what the paths of the side tables are relative to.

    Raises:
        Unreadable: a column would be there twice, keys are not unique or of no such type, or one is missing.
    """
    taken = set(log.names)
    found: dict[str, Column] = {}
    for join in joins:
        for name, column in _of_one(log, join, base).items():
            if name in taken:
                raise Unreadable(f"{name} is there twice")
            taken.add(name)
            found[name] = column
    return found


def _of_one(log: Oracle, join: dict[str, Any], base: Path) -> dict[str, Column]:
    place = base / join["path"]
    files = sorted(place.rglob("*.parquet")) if place.is_dir() else [place]
    tables = [pq.ParquetFile(file, coerce_int96_timestamp_unit="us").read() for file in files]
    side_key = join.get("side_key", join["key"])
    known = list(dict.fromkeys(name for table in tables for name in table.column_names))
    prefix = join.get("prefix", "")
    wanted = join.get("columns") or [name for name in known if name != side_key]
    if prefix + side_key == join["key"]:
        wanted = [name for name in wanted if name != side_key]
    keys = _column(tables, side_key, ids=True)
    ours = log.column(join["key"], ids=True)
    _check_keys(ours.family, keys.family)
    numbers = [_key(keys.family, value) for value in keys.values]
    there = [number for number in numbers if number is not None]
    if len(set(there)) != len(there):
        raise Unreadable(f"keys of {side_key} are not unique")
    rows = {number: row for row, number in enumerate(numbers) if number is not None}
    asked = [_key(ours.family, value) for value in ours.values]
    if join.get("on_missing") != "null" and any(key not in rows for key in asked):
        raise Unreadable(f"a key of {join['key']} is missing")
    found = {}
    for name in wanted:
        column = _column(tables, name, ids=False)
        values = [None if key not in rows else column.values[rows[key]] for key in asked]
        found[prefix + name] = Column(column.family, values)
    return found


def _column(tables: list[pa.Table], name: str, *, ids: bool) -> Column:
    if any(name not in table.column_names for table in tables):
        raise Unreadable(f"{name} is missing in a side table")
    families = [family(table.schema.field(name).type) for table in tables]
    values = [value for table in tables for value in python_values(one_array(table.column(name)))]
    return Column(one_family(name, families, ids=ids), values)


def _key(kind: str, value: Any) -> Any:
    """What is compared: 64 bits of integers, bytes, microseconds. A null equals nothing."""
    if value is None or kind == "null":
        return None
    if kind in EXACT:
        if not -(2**63) <= int(value) < 2**64:
            raise Unreadable("a key has more than 64 bits")
        return signed(int(value))
    if kind == "time" and not -(2**63) <= value < 2**63:
        raise Unreadable("a key is beyond the range of times")
    return value


def _check_keys(ours: str, theirs: str) -> None:
    for kind in (ours, theirs):
        if kind not in (*EXACT, "text", "bytes", "time", "null"):
            raise Unreadable(f"{kind} is no key")
    if "null" not in (ours, theirs) and not same_keys(ours, theirs):
        raise Unreadable("the keys have two types")
