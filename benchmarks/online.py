"""Fresher models: what a shorter time between versions for servers gains, on logs with real times that are replayed.

A model is trained on the days before; then the days that follow are replayed, each row scored by the version that was
published before it came (`embtables online --replay`). `frozen` never learns again. Every contender has the same rows,
batches of the same size and the same seeds; they differ in when versions are published. An interval ends with a batch,
so where rows are rare, versions come no more often than batches: the column `intervals` says how many there were.

Logs may be measured one by one: `--only LOG --json > FILE`, and then the rest with `--measured FILE` for each.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import _harness
from benchmarks.loop.logs import LOGS, Log, data_folder
from benchmarks.loop.sync_picture import PICTURE, picture

INTERVALS = {"1 day": 86_400, "5 hours": 18_000, "1 hour": 3_600, "10 minutes": 600, "1 minute": 60}


def ran(*arguments: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "embtables", *arguments, "--json"]
    done = subprocess.run(command, cwd=_harness.ROOT, capture_output=True, text=True, check=False)
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
        batch = ran("train", config, *common, "--set", "publish=null")
        found = {"frozen": batch}
        for title, seconds in intervals.items():
            online = _sets("online.part=test", f"online.sync_seconds={seconds}", f"train.batch_size={batch_size}")
            online += _sets("online.checkpoint_every_syncs=1000000", "publish={keep: 1}")
            found[title] = ran("online", config, "--replay", "--from", batch["run_dir"], *common, *online)
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
    return of.text(".4f")


def text(name: str, runs: dict[str, list[dict[str, Any]]], batch_size: int) -> str:
    """A table for a log: gains first."""
    base = [report["auc"] for report in runs["frozen"]]
    lines = []
    for title, reports in runs.items():
        gains = [report["auc"] - auc for report, auc in zip(reports, base, strict=True)]
        of = _harness.Spread.of(gains)
        lines.append(
            [
                of.text("+.4f"),
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
    options.add_argument(
        "--measured",
        type=Path,
        action="append",
        default=[],
        help="what --json printed: its logs are not measured again",
    )
    args: argparse.Namespace = options.parse_args()
    measured = [json.loads(path.read_text().splitlines()[-1]) for path in args.measured]
    result: dict[str, Any] = {name: of[name] for of in measured for name in LOGS if name in of}
    names = args.only or [name for name in LOGS if name == "online_retail" or data_folder() is not None]
    intervals = {"1 day": 86_400} if args.quick else INTERVALS
    for name in names:
        if name in result:
            continue
        runs: dict[str, list[dict[str, Any]]] = {}
        for seed in range(1 if args.quick else args.seeds):
            for title, report in measure(LOGS[name], seed, args.batch_size, intervals).items():
                runs.setdefault(title, []).append(report)
        result[name] = runs
        print(text(name, runs, args.batch_size), file=sys.stderr, flush=True)
    if not args.quick:
        PICTURE.write_text(picture(result, list(intervals)), encoding="utf-8")
    parts = [text(name, runs, args.batch_size) for name, runs in result.items()]
    _harness.finish("online", "Fresher models", result, "\n\n".join(parts), args)


if __name__ == "__main__":
    main()
