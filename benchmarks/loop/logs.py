"""Logs with real times, as configurations for `embtables train` on the days before and `embtables online` after."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import _harness

ROOT = _harness.ROOT
TABLE = {"dim": 16, "optimizer": {"kind": "rowwise_adagrad", "learning_rate": 0.02}}


@dataclass(frozen=True)
class Log:
    """A log to replay: how its configuration is written into a folder, and what is to be said of it."""

    write: Callable[[Path], Path]
    overrides: tuple[str, ...]
    about: str


def data_folder() -> Path | None:
    """Where data lies that may not be shipped."""
    named = os.environ.get("EMBTABLES_DATA")
    return None if named is None else Path(named)


def _online_retail(folder: Path) -> Path:
    del folder
    return ROOT / "examples" / "online_retail" / "dcnv2.yaml"


def _in_order(source: Path, folder: Path, label: Callable[[Any], Any], test_share: float) -> str:
    """Writes the log in order of time; returns the time from which on it is replayed."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = label(pq.read_table(source)).sort_by("time")
    times = table.column("time")
    pq.write_table(table, folder / "log.parquet", row_group_size=20_000)
    first: Any = times[int((1.0 - test_share) * len(times))].cast(pa.timestamp("s"), safe=False)
    return str(first.as_py().isoformat())


def _config(folder: Path, name: str, features: Sequence[Any], test_from: str, **more: Any) -> Path:
    content = {
        "name": name,
        "tables": [{"name": "ids", **TABLE}],
        "features": [f if isinstance(f, dict) else {"name": f, "table": "ids"} for f in features],
        "event_time": {"column": "time"},
        "data": {"path": str(folder / "log.parquet"), "split": {"kind": "time", "test_from": test_from}},
        "model": {"kind": "dcnv2", "num_cross_layers": 2, "hidden_sizes": [128, 64], "dropout": 0.1},
        "train": {"dense_optimizer": {"learning_rate": 1e-3}},
        **more,
    }
    # Each feature has a part of the shared table of its own.
    for number, feature in enumerate(content["features"]):
        feature["encoder"] = {"kind": "hash", "seed": number}
    path = folder / "log.yaml"
    path.write_text(json.dumps(content))  # JSON is YAML
    return path


def _movielens(folder: Path) -> Path:
    import pyarrow as pa
    import pyarrow.compute as pc

    data = data_folder()
    assert data is not None

    def label(table: pa.Table) -> pa.Table:
        table = table.filter(pc.not_equal(table.column("rating"), 3))
        return table.append_column("time", table.column("timestamp").cast(pa.timestamp("s")))

    test_from = _in_order(data / "ml1m" / "ratings.parquet", folder, label, 0.2)
    join = [
        {"path": str(data / "ml1m" / "users.parquet"), "key": "user_id"},
        {"path": str(data / "ml1m" / "movies.parquet"), "key": "movie_id", "columns": ["genres", "year"]},
    ]
    features = ["user_id", "movie_id", "gender", "age", "occupation", "zip", "year"]
    genres = {"name": "genres", "table": "ids", "split": "|", "pooling": "mean"}
    path = _config(
        folder,
        "movielens",
        [*features, genres],
        test_from,
        labels=[{"column": "rating", "name": "liked", "positive_above": 3}],
    )
    content = json.loads(path.read_text())
    content["data"]["join"] = join
    path.write_text(json.dumps(content))
    return path


def _open_bandit(folder: Path) -> Path:
    import pyarrow as pa

    data = data_folder()
    assert data is not None

    def label(table: pa.Table) -> pa.Table:
        texts = table.column("timestamp").cast(pa.string())
        return table.append_column("time", texts.cast(pa.timestamp("us", "UTC")).cast(pa.timestamp("us")))

    test_from = _in_order(data / "open_bandit_small" / "log.parquet", folder, label, 0.5)
    features = ["item_id", "position", "policy", "campaign", *(f"user_feature_{n}" for n in range(4))]
    return _config(folder, "open_bandit", features, test_from, labels=[{"column": "click"}])


LOGS = {
    "online_retail": Log(
        _online_retail,
        ("data.split={kind: time, test_from: 2011-11-01}",),
        "the days from 1 November 2011 on; its counts and ages are always fresh, also for the frozen model, and "
        "negatives are sampled",
    ),
    "movielens": Log(
        _movielens,
        ("train.batch_size=1024",),
        "the last fifth of MovieLens-1M by time, rating 3 left out; its timestamps are exact there",
    ),
    "open_bandit": Log(
        _open_bandit, ("train.batch_size=256",), "the second half of 60,000 impressions of a week with about 290 clicks"
    ),
}
