"""The table of docs/data-rules.md: every Arrow type in every role, as the reader really takes it.

`make docs` writes it between the two marks of the page; a test compares it.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from embtables.errors import EmbtablesError
from embtables.pipelines.config import RunConfig
from embtables.pipelines.sources.parquet import Log, ParquetReader
from embtables.schema import validate
from tests.fuzz.drawn.columns import FAMILIES, Mood, make

PAGE = Path(__file__).parents[2] / "docs" / "data-rules.md"
BEGIN, END = "<!-- generated: types and roles -->", "<!-- end of generated -->"
_ROWS = 8
_ZONES_LEFT_OUT = ("+05:30", "America/New_York", "UTC")

# Each role: what a row that is read becomes, and what it changes in a configuration whose other columns are plain.
Role = tuple[str, Callable[[dict[str, Any]], None]]


def _feature(**options: Any) -> Callable[[dict[str, Any]], None]:
    def change(config: dict[str, Any]) -> None:
        config["features"] = [{"name": "v", "table": "t", **options}]

    return change


def _set(**options: Any) -> Callable[[dict[str, Any]], None]:
    return lambda config: config.update(options)


def _data(**options: Any) -> Callable[[dict[str, Any]], None]:
    return lambda config: config["data"].update(options)


ROLES: dict[str, Role] = {
    "id": ("id", _feature()),
    "`split`": ("ids", _feature(split="|")),
    "`timestamp_part`": ("id", _feature(timestamp_part="hour")),
    "`num_buckets`": ("id", _feature(num_buckets=2)),
    "`weights_column`": ("number", _feature(column="u", weights_column="v")),
    "dense": ("number", _set(dense=[{"column": "v", "fill_null": 0}])),
    "label": ("number", _set(labels=[{"column": "v", "positive_above": 1}])),
    "`sample_weight`": ("number", _set(sample_weight="v")),
    "`event_time`": ("time", _set(event_time={"column": "v", "unit": "s"})),
    "hash split": ("yes", _data(split={"kind": "hash", "columns": ["v"], "validation": 0.1, "test": 0.1})),
    "`where`": ("yes", _data(where=["v is not null"])),
}


def types() -> dict[str, pa.Array]:
    """A small column without nulls and faults of every type, and lists of some."""
    found: dict[str, pa.Array] = {}
    for family, kinds in FAMILIES.items():
        for name in kinds:
            if family != "label" and not any(zone in name for zone in _ZONES_LEFT_OUT):
                column = make(np.random.default_rng(1), family, name, _ROWS, Mood())
                found[_shown(name)] = _positive(column) if family in ("int", "decimal", "fraction") else column
    for name, item in (("int64", 1), ("string", "a"), ("double", 0.5), ("timestamp[us]", 5)):
        kind = {"double": pa.float64(), "timestamp[us]": pa.timestamp("us"), "int64": pa.int64()}.get(name, pa.string())
        found[f"list, large_list, list_view of {name}"] = pa.array([[item]] * _ROWS, pa.list_view(kind))
    found["list of null"] = pa.array([[]] * _ROWS, pa.list_(pa.null()))
    return found


def _positive(column: pa.Array) -> pa.Array:
    return pa.array([abs(value) for value in column.to_pylist()], column.type)


def _shown(name: str) -> str:
    name = name.replace("values=", "").replace(", ordered=0", "").replace(", None]", "]")
    return name.replace("halffloat", "float16").replace("indices=", "")


def outcome(column: pa.Array, role: Role, folder: Path) -> str:
    """What the role makes of the column: the word of the role, or the message."""
    word, change = role
    unsigned = np.arange(_ROWS)
    pq.write_table(pa.table({"u": unsigned, "y": unsigned % 2, "v": column}), folder / "a.parquet")
    config: dict[str, Any] = {
        "name": "table",
        "tables": [{"name": "t", "dim": 4, "optimizer": {"kind": "adagrad", "learning_rate": 0.05}}],
        "features": [{"name": "u", "table": "t"}],
        "labels": [{"column": "y"}],
        "data": {"path": str(folder)},
        "model": {"kind": "deepfm", "hidden_sizes": [4]},
    }
    change(config)
    try:
        checked = validate(RunConfig, config)
        log = Log(checked, checked.data)
        batches = list(ParquetReader(log, "train", batch_size=_ROWS, fitted=log.fit_transforms(0)))
    except EmbtablesError as error:
        return " ".join(error.message.replace(str(folder), "").split())
    rows = sum(item.batch.num_rows for item in batches)
    lists = word == "id" and batches and bool((batches[0].batch.ids["v"].lengths != 1).any())
    return "no ids" if lists and rows else "ids" if word == "id" and "list" in str(column.type) else word


def generated() -> str:
    """The table and the messages below it, as Markdown; types that are alike in every role share a line."""
    messages: dict[str, int] = {}
    alike: dict[tuple[str, ...], list[str]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, column in types().items():
            cells = []
            for role in ROLES.values():
                found = outcome(column, role, Path(folder))
                if found not in ("id", "ids", "number", "time", "yes", "no ids"):
                    found = f"[{messages.setdefault(_general(found), len(messages) + 1)}]"
                cells.append(found)
            alike.setdefault(tuple(cells), []).append(name)
    lines = [f"| Arrow type | {' | '.join(ROLES)} |", "|---|" + "---|" * len(ROLES)]
    lines += [f"| {', '.join(names)} | {' | '.join(cells)} |" for cells, names in alike.items()]
    notes = [f"{number}. {message}" for message, number in messages.items()]
    return "\n".join([*lines, "", "A number in brackets is the error that refuses the type:", "", *notes])


def _general(message: str) -> str:
    """A message that is the same for all types."""
    message = message.partition("; or set data.on_bad_row")[0].partition(f" ({_ROWS} such rows")[0]
    ends = (", which cannot", "; a number", "; event times", "; timestamp_part", "; only strings", "; num_buckets")
    cut = min((message.index(end) for end in ends if end in message), default=0)
    return f"holds *type*{message[cut:]}" if cut and message.startswith("holds ") else message


def with_table(page: str, table: str) -> str:
    """The page with the table between its marks."""
    before, rest = page.split(BEGIN)
    _, after = rest.split(END)
    return f"{before}{BEGIN}\n\n{table}\n\n{END}{after}"


if __name__ == "__main__":
    written = with_table(PAGE.read_text(), generated())
    if sys.argv[1:] == ["--write"]:
        PAGE.write_text(written)
    else:
        sys.stdout.write(written)
