"""Side tables whose keys are the log's in other widths and encodings; with faults: twice, missing, of another type."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa

from tests.fuzz.drawn.columns import LISTS, Mood, make, make_list
from tests.fuzz.drawn.encode import encoded
from tests.fuzz.drawn.writers import write
from tests.fuzz.oracle.arrow import family, python_values

if TYPE_CHECKING:
    from tests.fuzz.drawn.draw import Draw

_KEYS = [["int", "bool", "decimal"], ["text", "bytes"], ["time", "date"], ["float"], ["odd"]]


def draw_joins(case: Draw) -> None:
    """One or two side tables over a key column; their columns become a feature, a dense column, or what a condition
    asks for.
    """
    group = _KEYS[int(case.rng.choice(len(_KEYS), p=[0.4, 0.4, 0.14, 0.03, 0.03]))]
    ends = float(case.rng.choice([0, 0, 0, 0.1]))
    spirit = Mood(float(case.rng.choice([0, 0, 0.2])), ends, 0.0)
    case.column("jk", case.types([group], [1]), spirit, wrap=case.chance(0.03))
    joins = [_join(case, number) for number in range(2 if case.chance(0.2) else 1)]
    case.config["data"]["join"] = joins
    _use(case, joins)


def _use(case: Draw, joins: list[dict[str, Any]]) -> None:
    """Features and dense columns of what is joined."""
    for number, join in enumerate(joins):
        prefix = join.get("prefix", "")
        if number == 0 or prefix:
            case.features.append({"name": f"city{number}", "column": f"{prefix}city", "table": "t"})
            if case.chance(0.3):
                spec = {"column": f"{prefix}size", "fill_null": 0}
                case.config["dense"] = [*case.config.get("dense", []), spec]
    if case.chance(0.2):
        prefix = joins[0].get("prefix", "")
        case.config["data"]["where"] = [*case.config["data"].get("where", []), f"{prefix}city is not null"]


def _join(case: Draw, number: int) -> dict[str, Any]:
    rng = case.rng
    side_key = "jk" if case.chance(0.7) else "key"
    for part, table in enumerate(_tables(case, side_key)):
        assert write(table, case.root / f"side{number}" / f"{part}.parquet", rng) is not None
    place = f"side{number}" if "parts" in case.config["data"] else f"../side{number}"
    join: dict[str, Any] = {"path": place, "key": "jk"}
    if side_key != "jk":
        join["side_key"] = side_key
    if number == 1 or case.chance(0.2):
        join["prefix"] = f"p{number}_" if case.chance(0.9) else ""
    if case.chance(0.3):
        join["columns"] = ["city", "size", *([side_key] if case.chance(0.2) else [])]
    if case.chance(0.8):
        join["on_missing"] = "null"
    return join


def _tables(case: Draw, side_key: str) -> list[pa.Table]:
    """The side table in one file or two, whose types differ."""
    rng = case.rng
    kinds = {family(file["jk"].type) for file in case.files}
    values = [value for file in case.files for value in python_values(file["jk"])]
    plain = [value for value in dict.fromkeys(_hashable(values)) if value is not None]
    keys = [value for value in plain if case.chance(0.9)]
    if case.chance(0.1):
        keys.append(None)
    if case.chance(0.05) and plain:
        keys += [plain[0], plain[0]]
    cut = int(rng.integers(len(keys) + 1)) if case.chance(0.3) else len(keys)
    kind = _kind_of(kinds)
    tables = [_table(case, side_key, kind, some) for some in ([keys[:cut], keys[cut:]] if cut < len(keys) else [keys])]
    if case.chance(0.05):  # a column that the log has too
        tables = [table.append_column("y", pa.nulls(table.num_rows)) for table in tables]
    if case.chance(0.03) and len(tables) > 1:
        tables[0] = tables[0].drop_columns(["city"])
    return tables


def _kind_of(kinds: set[str]) -> str:
    plain = kinds - {"null"}
    if plain <= {"int", "bool", "decimal"}:
        return "int"
    return next((kind for kind in ("bytes", "text", "time") if kind in plain), "none")


def _hashable(values: list[Any]) -> list[Any]:
    return [value for value in values if not isinstance(value, list | dict)]


def _table(case: Draw, side_key: str, kind: str, keys: list[Any]) -> pa.Table:
    """Rows for the keys: a column for ids, one for numbers, one of any type that nothing reads."""
    rng, n = case.rng, len(keys)
    column = None if kind == "none" else encoded(rng, kind, keys)
    if column is None or case.chance(0.03):
        column = pa.array(range(n)) if case.chance(0.7) else pa.array([[i] for i in range(n)], pa.list_(pa.int64()))
    ids = str(rng.choice(["int", "text", "bytes", "decimal"])) if case.chance(0.3) else "text"
    spirit = Mood(float(rng.choice([0, 0, 0.2])), 0.0, 0.0)
    columns = {side_key: column, "size": make(rng, "int", "int32", n, Mood())}
    name = {"int": "int16", "text": "string", "bytes": "binary", "decimal": "decimal128(20, 0)"}[ids]
    columns["city"] = make(rng, ids, name, n, spirit)
    if case.chance(0.1):
        columns["city"] = make_list(rng, ids, name, n, spirit, str(rng.choice(LISTS)))
    if case.chance(0.1):
        columns["more"] = make(rng, "odd", "struct", n, Mood())
    return pa.table(columns)
