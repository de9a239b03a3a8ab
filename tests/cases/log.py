"""What cases are made of: a folder with a log, columns for it, and a configuration as YAML text."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

Columns = Mapping[str, Any]
TABLES = "[{name: t, dim: 4, optimizer: {kind: adagrad, learning_rate: 0.05}}]"
BY_U = "split: {kind: hash, columns: [u], validation: 0.2, test: 0.2}"


class Folder:
    """The folder of a case: `log/` with parquet files, beside it whatever else the case needs."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "log").mkdir()

    def path(self, name: str) -> Path:
        """A path below the folder, whose parents exist afterwards."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def write(self, name: str, columns: pa.Table | Columns, **options: Any) -> Path:
        """A file of the log, `a.parquet` or `k=v/a.parquet`; a name that starts with `/` lies beside the log."""
        table = columns if isinstance(columns, pa.Table) else pa.table(dict(columns))
        path = self.path(name[1:] if name.startswith("/") else f"log/{name}")
        pq.write_table(table, path, **options)
        return path


def clicks(rows: int = 600, seed: int = 1, **more: Any) -> dict[str, Any]:
    """u: 40 users in turn, x: numbers in [0, 1), y: 0/1, more often 1 for odd users; and more columns."""
    rng = np.random.default_rng(seed)
    user = np.arange(rows) * 7 % 40
    label = (rng.random(rows) < 0.3 + 0.3 * (user % 2)).astype(np.int64)
    return {"u": pa.array(user), "x": pa.array(rng.random(rows)), "y": pa.array(label), **more}


def every(values: Sequence[Any], rows: int, kind: pa.DataType | None = None) -> pa.Array:
    """The values in turn, as a column of so many rows."""
    return pa.array([values[i % len(values)] for i in range(rows)], kind)


def as_text(values: Sequence[bytes | None]) -> pa.Array:
    """Bytes as a string column, whatever they hold: writers do not check, nor do readers."""
    return pa.array(values, pa.binary()).view(pa.string())


def required(columns: Columns) -> pa.Table:
    """The same columns, declared as never null."""
    table = pa.table(dict(columns))
    return table.cast(pa.schema([pa.field(f.name, f.type, nullable=False) for f in table.schema]))


def config(
    *features: str,
    data: str = "",
    train: str = "",
    tables: str = TABLES,
    labels: str = "[{column: y}]",
    model: str = "{kind: deepfm, hidden_sizes: [4]}",
    path: str = "log",
    **sections: str,
) -> str:
    """A configuration as YAML text.

    Args:
        features: columns, or features in YAML's flow style where they begin with `{`; by default the column `u`.
        data, train: options that are added to the sections.
        sections: other sections, such as dense="[{column: x}]".
    """
    shown = [
        f if f.startswith("{") else f"{{name: f{i}, column: {json.dumps(f)}, table: t}}"
        for i, f in enumerate(features or ("u",))
    ]
    lines = [
        "name: c",
        f"tables: {tables}",
        f"features: [{', '.join(shown)}]",
        f"labels: {labels}",
        f"data: {{path: {json.dumps(path)}{', ' * bool(data)}{data}}}",
        f"model: {model}",
        f"train: {{batch_size: 256, threads: 1, log_every_steps: 1{', ' * bool(train)}{train}}}",
    ]
    return "\n".join(lines + [f"{name}: {text}" for name, text in sections.items()]) + "\n"
