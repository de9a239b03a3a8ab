"""How the files of a case lie: in folders that give columns, in parts that lie apart, with columns left out."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote

import pyarrow as pa
import yaml

from tests.fuzz.drawn.conditions import draw_condition
from tests.fuzz.drawn.writers import write

if TYPE_CHECKING:
    from tests.fuzz.drawn.draw import Draw

PARTS = ("train", "validation", "test")
_NULL = "__HIVE_DEFAULT_PARTITION__"
# By what the folders' column is declared as: values of its folders, and the family of literals that meet them.
_FOLDERS: dict[str, tuple[list[str], str]] = {
    "text": (["1", "01", "NO", "x y", "é", _NULL, "a/b", "2024-01-02"], "text"),
    "string": (["1", "01", "NO", "1.10", _NULL], "text"),
    "int64": (["1", "01", "-3", "9223372036854775807", _NULL, "1"], "int"),
    "float64": (["1", "0.50", "1e2", _NULL], "float"),
    "bool": (["true", "False", "1", _NULL], "bool"),
    "date": (["2024-01-02", "2024-01-05", _NULL], "date"),
    "timestamp": (["2024-01-02T03:04:05", "2024-01-05", "2024-01-05 10:00:00", _NULL], "time"),
}


def draw_parts(case: Draw) -> None:
    """Files given as parts: the first are for training, each other part has what is left."""
    given = PARTS[: int(case.rng.integers(1, 4))] if case.chance(0.7) else ("train", "test")
    given = given[: len(case.sizes)]
    case.config["data"]["parts"] = {part: f"log/{part}" for part in given}
    del case.config["data"]["path"]
    more = len(case.sizes) - len(given)
    case.part_of = [*["train"] * more, *given]


def draw_missing(case: Draw) -> None:
    """Leaves a column out of some files; mostly it may be missing."""
    if case.chance(0.8):
        case.config["data"]["on_missing_column"] = "null"
    names = sorted(set(case.files[0]) - {"y", "at"})
    name = str(case.rng.choice(names))
    for file in case.files:
        if case.chance(0.5) and len(file) > 1:
            del file[name]


def draw_folders(case: Draw) -> str:
    """The column `c1`, which folders give: a feature, a dense column, or one of a condition; its declared type."""
    kind = str(case.rng.choice(list(_FOLDERS), p=[0.4, *[0.1] * 6]))
    data, role = case.config["data"], str(case.rng.choice(["feature", "feature", "where", "dense"]))
    declared = kind if kind != "text" else None
    if role == "dense" and kind in ("int64", "float64"):
        case.config["dense"] = [*case.config.get("dense", []), {"column": "c1", "fill_null": 0}]
        declared = declared if case.chance(0.5) else None  # a number by its use
    elif role == "where":
        data["where"] = [*data.get("where", []), draw_condition(case, "c1", _FOLDERS[kind][1])]
    else:
        case.features.append({"name": "c1", "table": "t"})
    if declared is not None:
        data["partitions"] = {"c1": declared}
    return kind


def write_files(case: Draw) -> None:
    """Writes the files and the configuration."""
    rng = case.rng
    hive = case.folders
    for number, columns in enumerate(case.files):
        folder = "" if case.part_of is None else f"{case.part_of[number]}/"
        if hive is not None:
            value = str(rng.choice(_FOLDERS[hive][0])) if not case.chance(0.02) else "x"
            folder += f"c1={quote(value, safe=' é')}/"
        names = list(rng.permutation(list(columns))) if case.chance(0.5) else list(columns)
        table = pa.table({name: columns[name] for name in names})
        if case.chance(0.2):
            table = table.append_column("more", pa.array(range(table.num_rows)))
        path = case.root / "log" / f"{folder}{number}.parquet"
        case.writers.append(write(table, path, rng) or "none")
    (case.root / "config.yaml").write_text(yaml.safe_dump(case.config, sort_keys=False, allow_unicode=True))
