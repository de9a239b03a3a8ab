"""Online training against training from files: rows per second of the same rows, model and batch size.

`train`: one epoch over parquet. `replay`: `embtables online --replay` over the same files, in their order. `drain`:
`embtables online --drain` over a folder log that holds a row as an impression, and its click as another event. Both
online contenders also score every row before they train on it, and write a checkpoint and a version for servers after
every 100,000 rows; training from files writes one checkpoint at its end. Measured is the whole call in a process of its
own that has imported everything, so what a run begins and ends with is in it.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from benchmarks import _harness
from benchmarks.loop.movielens_events import config, entries, rows

CONTENDERS = ("train", "replay", "drain")
BATCH, SYNC_ROWS, ENTRY = 4096, 100_000, 1000
GOAL = 0.7
DAY = 86_400


def prepare(folder: Path, num_rows: int) -> None:
    """Writes the newest rows as files, and as events."""
    from embtables.events import open_log

    table = rows()
    table = table.slice(table.num_rows - min(num_rows, table.num_rows)).combine_chunks()
    (folder / "log").mkdir()
    pq.write_table(table, folder / "log" / "rows.parquet", row_group_size=65_536)
    log = open_log(f"folder://{folder}/events?partitions=1&fsync=interval")
    for _, events in entries(table, np.zeros(table.num_rows), ENTRY):
        log.append(0, events)
    log.close()


def contend(folder: Path, name: str, threads: int | None) -> dict[str, Any]:
    """One contender's figures, in this process."""
    import torch

    from embtables.pipelines.config import load_config
    from embtables.pipelines.online import run_online
    from embtables.pipelines.training.train import train

    torch.nn.Linear(1, 1)(torch.ones(1, 1)).backward()  # starts what torch starts once
    events = {"log": f"folder://{folder}/events", "item": "movie_id", "window_seconds": 60}
    online = {"sync_rows": SYNC_ROWS, "events": {**events, "max_clock_step_seconds": 30 * DAY}}
    with tempfile.TemporaryDirectory(dir=folder) as place:
        path = config(folder / "log", Path(place), name, 0, batch_size=BATCH, online=online)
        resolved = load_config(path, [] if threads is None else [f"train.threads={threads}"])
        begun, cpu = time.perf_counter(), time.process_time()
        if name == "train":
            report = train(resolved, shown=False)
        else:
            kind: run_online.Kind = "replay" if name == "replay" else "events"
            report = run_online.online(resolved, kind, drains=name == "drain", shown=False)
        seconds, cpu = time.perf_counter() - begun, time.process_time() - cpu
    return {
        "per_second": report["rows"] / seconds,
        "per_cpu_second": report["rows"] / cpu,
        "of_steps": report["rows_per_second"],
        "rows": report["rows"],
    }


def text(found: dict[str, list[dict[str, Any]]]) -> str:
    """The table, ratios first."""
    lines, ratios = [], {}
    for name, runs in found.items():
        pairs = zip(runs, found["train"], strict=True)
        of = _harness.Spread.of([run["per_second"] / base["per_second"] for run, base in pairs])
        ratios[name] = of.median
        rates = _harness.Spread.of([run["per_second"] for run in runs])
        cpu, steps = (_harness.Spread.of([run[key] for run in runs]).median for key in ("per_cpu_second", "of_steps"))
        lines.append(
            [
                f"{of.median:.2f}x ({of.low:.2f}..{of.high:.2f})",
                name,
                f"{rates.median:,.0f} ({rates.low:,.0f}..{rates.high:,.0f})",
                f"{cpu:,.0f}",
                f"{steps:,.0f}",
            ]
        )
    head = ["against train", "", "rows/s", "rows per CPU second", "rows/s of the steps alone"]
    reached = ", ".join(
        f"{name} {'reached' if ratios[name] >= GOAL else 'missed'}" for name in CONTENDERS if name != "train"
    )
    return (
        f"{_harness.table(head, lines)}\n\n{found['train'][0]['rows']:,} rows of MovieLens-1M, batches of {BATCH:,}. "
        f"Goal: {GOAL}x: {reached}."
    )


def main() -> None:
    options = _harness.parser(__doc__)
    options.add_argument("--contender", nargs=2, metavar=("FOLDER", "NAME"), help=argparse.SUPPRESS)
    options.add_argument("--threads", type=int, help="of every contender; by default all cores")
    args = options.parse_args()
    if args.contender is not None:
        print(json.dumps(contend(Path(args.contender[0]), args.contender[1], args.threads)))
        return
    (_harness.ROOT / "build").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=_harness.ROOT / "build", prefix="speed-") as folder:
        prepare(Path(folder), 100_000 if args.quick else 1_000_000)
        command = [sys.executable, "-W", "ignore", "-m", "benchmarks.loop.speed"]
        command += [] if args.threads is None else ["--threads", str(args.threads)]
        command += ["--contender", folder]
        found = _harness.interleave({name: [*command, name] for name in CONTENDERS}, 1 if args.quick else 5)
    _harness.finish("online_speed", "Online training, speed", found, text(found), args, "loop.speed")


if __name__ == "__main__":
    main()
