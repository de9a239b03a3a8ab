"""A trained version with features of every kind, and side tables of its items, users and pairs of them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from embtables.models.scorer import Scorer
from embtables.models.served import served_tables
from embtables.models.version_content import SideTableContent, scoring_content
from embtables.pipelines.config import RunConfig
from embtables.pipelines.training.train import train
from embtables.schema import validate
from embtables.serving.versions.served_version import AppliedRows, ServedVersion
from embtables.serving.versions.side_tables.side_table import PublishedSideTable
from embtables.state.folder.version_folder import StateFolder
from embtables.state.read.find import find
from embtables.state.read.serve import load_served

USERS, ITEMS = 40, 60
WORDS = ["red", "blue", "cup", "plate", "lamp", "box"]
_DAY = 86_400_000_000
MODELS: dict[str, dict[str, Any]] = {
    "dcnv2": {"kind": "dcnv2", "num_cross_layers": 2, "hidden_sizes": [16, 8], "dropout": 0.1},
    "stacked": {"kind": "dcnv2", "structure": "stacked", "hidden_sizes": [16], "normalisation": "batch_norm"},
    "deepfm": {"kind": "deepfm", "hidden_sizes": [16]},
    "fm": {"kind": "fm"},
    "lr": {"kind": "lr"},
}


def item_name(number: int) -> str:
    return f"item-{number}"


def items_table() -> pa.Table:
    rng = np.random.default_rng(1)
    titles = [" ".join(rng.choice(WORDS, 1 + n % 4)) if n % 7 else None for n in range(ITEMS)]
    prices = rng.lognormal(size=ITEMS).astype(np.float32)
    return pa.table(
        {
            "item": [item_name(n) for n in range(ITEMS)],
            "title": titles,
            "price": pa.array(prices, mask=np.arange(ITEMS) % 11 == 0),
            "sold": pa.array(rng.integers(0, 500, ITEMS).astype(np.float32)),
        }
    )


def users_table() -> pa.Table:
    rng = np.random.default_rng(2)
    past = [[item_name(int(i)) for i in rng.integers(0, ITEMS, n % 6)] for n in range(USERS)]
    return pa.table({"user": pa.array(np.arange(USERS)), "past": past, "age": rng.integers(18, 80, USERS) * 1.0})


def pairs_table() -> pa.Table:
    rng = np.random.default_rng(3)
    drawn = zip(rng.integers(0, USERS, 300).tolist(), rng.integers(0, ITEMS, 300).tolist(), strict=True)
    pairs = sorted(set(drawn))
    users, items = zip(*pairs, strict=True)
    bought = rng.integers(1, 9, len(pairs)).astype(np.float32)
    return pa.table({"user": users, "item": [item_name(i) for i in items], "bought": bought})


def rows_table(rows: int, seed: int = 0) -> pa.Table:
    """Full rows as a log has them, joined."""
    rng = np.random.default_rng(seed)
    user, item = rng.integers(0, USERS, rows), rng.integers(0, ITEMS, rows)
    items, users, pairs = items_table(), users_table(), pairs_table()
    bought = {(u, i): b for u, i, b in zip(*(pairs.column(n).to_pylist() for n in range(3)), strict=True)}
    names = [item_name(i) for i in item]
    lengths = rng.integers(0, 4, rows)
    return pa.table(
        {
            "user": user,
            "item": names,
            "shop": rng.integers(0, 5, rows).astype(np.uint8),
            "near": [rng.integers(0, 9, n).tolist() for n in lengths],
            "near_weight": [rng.random(n).astype(np.float32).tolist() for n in lengths],
            "distance": rng.random(rows) * 10,
            "time": pa.array(rng.integers(0, 400 * _DAY, rows), pa.timestamp("us")),
            "click": rng.integers(0, 2, rows),
            **{name: items.column(name).take(item) for name in ("title", "price", "sold")},
            **{name: users.column(name).take(user) for name in ("past", "age")},
            "bought": pa.array([bought.get(pair, 0.0) for pair in zip(user.tolist(), names, strict=True)]),
        }
    )


def content(log: Path, runs: Path, model: dict[str, Any]) -> dict[str, Any]:
    learns = {"dim": 4, "optimizer": {"kind": "adagrad", "learning_rate": 0.1}}
    return {
        "name": "zoo",
        "tables": [
            {"name": "item", **learns, "share_ids": True, "ttl_seconds": 300 * 86400},
            {"name": "user", "num_rows": 100, **learns},
            {"name": "other", **learns},
        ],
        "features": [
            {"name": "item", "table": "item"},
            {"name": "past", "table": "item", "pooling": "mean", "max_length": 4},
            {"name": "user", "table": "user", "encoder": {"kind": "multi_hash"}},
            {"name": "title", "table": "other", "split": " ", "pooling": "mean"},
            {"name": "shop", "table": "other", "null_id": 77},
            {"name": "near", "table": "other", "weights_column": "near_weight"},
            {"name": "distance", "table": "other", "num_buckets": 4},
            {"name": "hour", "column": "time", "timestamp_part": "hour", "table": "other"},
            {"name": "user_item", "cross": ["user", "item"], "table": "other"},
            {"name": "user_past", "cross": ["user", "past"], "table": "other", "max_length": 3},
        ],
        "labels": [{"column": "click"}],
        "dense": [
            {"column": "price", "transforms": ["log1p", "standardise"], "fill_null": 0},
            {"column": "sold", "transforms": ["quantile"]},
            {"column": "age"},
            {"column": "bought", "transforms": ["log1p"]},
        ],
        "event_time": {"column": "time"},
        "data": {"path": str(log)},
        "model": model,
        "train": {
            "epochs": 1,
            "batch_size": 200,
            "runs_dir": str(runs),
            "threads": 1,
            "dense_optimizer": {"learning_rate": 0.05},
        },
    }


def trained_run(folder: Path, model: str = "dcnv2") -> Path:
    """The folder of a run over two files of 600 rows, in order of time."""
    log = folder / "log"
    log.mkdir()
    table = rows_table(1200).sort_by("time")
    for part in range(2):
        pq.write_table(table.slice(600 * part, 600), log / f"part-{part}.parquet")
    config = validate(RunConfig, content(log, folder / "runs", MODELS[model]))
    return Path(train(config, shown=False)["run_dir"])


def side_table(
    name: str, keys: tuple[str, ...], table: pa.Table, missing: Any, defaults: dict[str, Any] | None = None
) -> PublishedSideTable:
    columns = tuple(column for column in table.column_names if column not in keys)
    of = SideTableContent(
        name=name,
        keys=keys,
        columns=columns,
        file=f"{name}.arrow",
        rows=table.num_rows,
        missing=missing,
        defaults=defaults or {},
    )
    return PublishedSideTable(of, f"checksum of {name}", table)


def side_tables() -> list[PublishedSideTable]:
    return [
        side_table("items", ("item",), items_table(), "defaults", {"title": "box", "sold": 3.0}),
        side_table("users", ("user",), users_table(), "defaults", {"past": [], "age": 33.0}),
        side_table("pairs", ("user", "item"), pairs_table(), "defaults", {"bought": 0.0}),
    ]


def served_version(
    run: Path, sides: Sequence[PublishedSideTable] = (), candidate_key: str | None = None, which: str = "last"
) -> ServedVersion:
    """A version as a server loads it."""
    folder = run / "checkpoints"
    chain, state = find(folder, which), StateFolder(folder)
    content, tables = scoring_content(chain[-1]), served_tables(state, chain)
    last = load_served(state, chain, tables)
    content = content.model_copy(update={"side_tables": tuple(s.of for s in sides), "candidate_key": candidate_key})
    scorer = Scorer.of_content(content, tables, last.tensors, chain[-1].name)
    by_name = {side.of.name: side for side in sides}
    return ServedVersion(chain[-1], content, scorer, by_name, time.time(), AppliedRows(chain[-1].name))
