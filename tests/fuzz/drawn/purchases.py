"""A log of purchases alone, of which `data.prepare` makes examples: columns of every type, in files that differ."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import yaml

from tests.fuzz.drawn.columns import Mood, mood
from tests.fuzz.drawn.draw import Draw
from tests.fuzz.drawn.writers import write

_IDS = [["int", "bool", "decimal"], ["text", "bytes"], ["time", "date"], ["float"], ["odd"]]
_WHOLE = Mood()


def draw_purchases(seed: int, number: int, root: Path) -> dict[str, Any]:
    """Writes `log/` and `config.yaml`; returns the configuration, with the writers under `writers`."""
    case = Draw(np.random.default_rng([seed, number]), root, clean=True)
    for name in ("item", "user", "invoice"):
        spirit = mood(case.rng) if case.chance(0.1) else _WHOLE
        case.column(name, case.types(_IDS, [10, 10, 1, 0.3, 0.3]), spirit)
    case.column("at", case.types([["time", "date"], ["int"]], [20, 1]), _WHOLE)
    prepare: dict[str, Any] = {"kind": "sampled_negatives", "item": "item", "user": "user", "group": "invoice"}
    prepare |= {"event_time": "at", "negatives_per_positive": int(case.rng.choice([1, 3]))}
    prepare |= {"pool_days": int(case.rng.choice([1, 28])), "history_length": int(case.rng.choice([1, 100]))}
    if case.chance(0.5):
        case.numbers("price", mood(case.rng))
        prepare["price"] = "price"
    if case.chance(0.5):
        case.ids("shop")
        prepare["context"] = ["shop"]
    if case.chance(0.3):
        prepare["where"] = ["item is not null", "user is not null", "invoice is not null"]
    table = {"name": "t", "dim": 4, "optimizer": {"kind": "adagrad", "learning_rate": 0.05}}
    config: dict[str, Any] = {
        "name": "fuzz",
        "tables": [table],
        "features": [{"name": name, "table": "t"} for name in ("item", "user", "history")],
        "labels": [{"column": "label"}],
        "data": {"path": "log", "prepare": prepare},
        "model": {"kind": "lr"},
        "train": {"batch_size": 16, "threads": 1},
    }
    writers = [
        write(pa.table(columns), root / "log" / f"{place}.parquet", case.rng) or "none"
        for place, columns in enumerate(case.files)
    ]
    (root / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    return {**config, "writers": writers}
