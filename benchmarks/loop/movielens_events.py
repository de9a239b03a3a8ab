"""MovieLens-1M as impressions and clicks of an event log: a rating is an impression, a rating of 5 a click, in order of
time. Delays of clicks are SYNTHETIC, wherever they are not zero.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from benchmarks._harness import ctr
from benchmarks.loop.logs import TABLE

FEATURES = ("user_id", "movie_id", "gender", "age", "occupation", "zip", "year")


def rows() -> pa.Table:
    """All ratings with what the model reads of user and movie, in order of time."""
    data = ctr.data_folder("ml1m") / "ml1m"
    table = pq.read_table(data / "ratings.parquet").select(["user_id", "movie_id", "rating", "timestamp"])
    for side, key, columns in (
        ("users", "user_id", ["gender", "age", "occupation", "zip"]),
        ("movies", "movie_id", ["genres", "year"]),
    ):
        found = pq.read_table(data / f"{side}.parquet")
        places = pc.index_in(table[key].cast(found[key].type), found[key])
        for name in columns:
            table = table.append_column(name, found[name].take(places))
    table = table.sort_by([("timestamp", "ascending"), ("user_id", "ascending"), ("movie_id", "ascending")])
    table = table.append_column("click", pc.equal(table["rating"], 5).cast(pa.float32()))
    times = table["timestamp"].cast(pa.timestamp("s")).cast(pa.timestamp("us"))
    return table.append_column("event_time", times).select([*FEATURES, "genres", "click", "event_time"])


def config(
    log: Path, folder: Path, name: str, seed: int, *, batch_size: int = 256, online: dict[str, Any] | None = None
) -> Path:
    """Writes a configuration of the model into a folder, which gets its runs, too; `online`: the section."""
    features: list[dict[str, Any]] = [{"name": name} for name in FEATURES]
    features.append({"name": "genres", "split": "|", "pooling": "mean"})
    for number, feature in enumerate(features):
        feature |= {"table": "ids", "encoder": {"kind": "hash", "seed": number}}
    content = {
        "name": name,
        "tables": [{"name": "ids", **TABLE}],
        "features": features,
        "labels": [{"column": "click"}],
        "event_time": {"column": "event_time"},
        "data": {"path": str(log)},
        "model": {"kind": "dcnv2", "num_cross_layers": 2, "hidden_sizes": [128, 64], "dropout": 0.1},
        "train": {
            "batch_size": batch_size,
            "seed": seed,
            "runs_dir": str(folder / "runs"),
            "dense_optimizer": {"learning_rate": 1e-3},
        },
        "online": online,
    }
    path = folder / f"{name}.yaml"
    path.write_text(json.dumps(content))  # JSON is YAML
    return path


def entries(shown: pa.Table, delays: npt.NDArray[np.float64], entry_rows: int) -> list[tuple[int, pa.RecordBatch]]:
    """Impressions and clicks in the order in which they come, as entries: (time of the last event, events).

    Args:
        shown: (n,) of `rows`.
        delays: (n,) seconds from an impression to its click.
        entry_rows: events of an entry.
    """
    number = np.arange(shown.num_rows)
    names = pa.array([f"{n}" for n in number])
    impressions = shown.drop_columns(["click"]).append_column("request_id", names)
    clicked = np.flatnonzero(shown["click"].to_numpy() > 0.0)
    times = shown["event_time"].cast(pa.int64()).to_numpy()[clicked] + (delays[clicked] * 1e6).astype(np.int64)
    clicks = impressions.select(["movie_id", "request_id"]).take(pa.array(clicked))
    clicks = clicks.append_column("event_time", pa.array(times).cast(pa.timestamp("us")))
    kinds = ["impression"] * shown.num_rows + ["click"] * len(clicked)
    events = pa.concat_tables([impressions, clicks], promote_options="default").append_column("kind", pa.array(kinds))
    ids = pc.binary_join_element_wise(events["kind"], events["request_id"], "-")
    events = events.append_column("event_id", ids)
    at = events["event_time"].cast(pa.int64()).to_numpy()
    order = np.lexsort((np.arange(len(at)), at))
    batches = events.take(pa.array(order)).combine_chunks().to_batches(entry_rows)
    ends = np.sort(at)[entry_rows - 1 :: entry_rows].tolist()
    return list(zip([*ends, int(at.max())], batches, strict=False))
