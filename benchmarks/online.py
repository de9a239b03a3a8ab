"""Fresher models: what a shorter time between versions for servers gains, on logs with real times that are replayed.

A model is trained on the days before; then the days that follow are replayed, each row scored by the version that was
published before it came (`embtables online --replay`). `frozen` never learns again. Every contender has the same rows,
batches of the same size and the same seeds; they differ in when versions are published.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import _harness

INTERVALS = {"1 day": 86_400, "5 hours": 18_000, "1 hour": 3_600, "10 minutes": 600, "1 minute": 60}
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


def _embtables(*arguments: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "embtables", *arguments, "--json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}:\n{done.stderr}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def _sets(*overrides: str) -> list[str]:
    return [word for override in overrides for word in ("--set", override)]


def measure(log: Log, seed: int, batch_size: int, intervals: dict[str, int]) -> dict[str, dict[str, Any]]:
    """One seed: by contender its report."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        config = str(log.write(folder))
        common = _sets(*log.overrides, f"train.runs_dir={folder}/runs", f"train.seed={seed}", "train.threads=1")
        batch = _embtables("train", config, *common, "--set", "publish=null")
        found = {"frozen": batch}
        for title, seconds in intervals.items():
            online = _sets("online.part=test", f"online.sync_seconds={seconds}", f"train.batch_size={batch_size}")
            online += _sets("online.checkpoint_every_syncs=1000000", "publish={keep: 1}")
            found[title] = _embtables("online", config, "--replay", "--from", batch["run_dir"], *common, *online)
        return found


def _cell(reports: Sequence[dict[str, Any]], *path: str) -> str:
    values = []
    for report in reports:
        value: Any = report
        for name in path:
            value = None if value is None else value.get(name)
        values.append(value)
    if any(value is None for value in values):
        return "-"
    of = _harness.Spread.of(values)
    return f"{of.median:.4f} ({of.low:.4f}..{of.high:.4f})"


def text(name: str, runs: dict[str, list[dict[str, Any]]], batch_size: int) -> str:
    """A table for a log: gains first."""
    base = [report["auc"] for report in runs["frozen"]]
    lines = []
    for title, reports in runs.items():
        gains = [report["auc"] - auc for report, auc in zip(reports, base, strict=True)]
        of = _harness.Spread.of(gains)
        lines.append(
            [
                f"{of.median:+.4f} ({of.low:+.4f}..{of.high:+.4f})",
                title,
                *(_cell(reports, figure) for figure in ("auc", "log_loss", "calibration")),
                _cell(reports, "slices", "cold_items", "auc"),
                "-" if title == "frozen" else f"{reports[0]['intervals']:,}",
            ]
        )
    head = ["AUC gain", "versions every", "AUC", "log loss", "calibration", "AUC, cold items", "intervals"]
    rows = runs["frozen"][0]["evaluated_rows"]
    return (
        f"### {name}\n\n{rows:,} rows: {LOGS[name].about}. Batches of {batch_size}, {len(base)} seeds.\n\n"
        + _harness.table(head, lines)
    )


def main() -> None:
    options = _harness.parser(__doc__)
    options.add_argument("--only", choices=LOGS, action="append", help="a log; by default all that are there")
    options.add_argument("--seeds", type=int, default=3)
    options.add_argument("--batch-size", type=int, default=256)
    args: argparse.Namespace = options.parse_args()
    names = args.only or [name for name in LOGS if name == "online_retail" or data_folder() is not None]
    intervals = {"1 day": 86_400} if args.quick else INTERVALS
    result, parts = {}, []
    for name in names:
        runs: dict[str, list[dict[str, Any]]] = {}
        for seed in range(1 if args.quick else args.seeds):
            for title, report in measure(LOGS[name], seed, args.batch_size, intervals).items():
                runs.setdefault(title, []).append(report)
        result[name] = runs
        parts.append(text(name, runs, args.batch_size))
        print(parts[-1], file=sys.stderr, flush=True)
    _harness.finish("online", "Fresher models", result, "\n\n".join(parts), args)


if __name__ == "__main__":
    main()
