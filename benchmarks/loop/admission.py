"""Admission and expiry: what rows cost, and what they are worth, on purchases that are replayed from the first day on.

online_retail is replayed whole, once, in order of time, by a model that has seen nothing (`embtables online --replay`):
every row is scored before it is trained on, and a version is published for each day. The policies are those of all
tables. AUC and log loss are of the days from 1 November 2011 on. Counts, ages and prices, which say much here, are
columns of the log and need no rows: so ids are worth less than in a log without them.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks import _harness
from benchmarks.loop.logs import LOGS

TABLES = ("item", "customer", "word", "context", "customer_item")
FROM, QUICK_FROM = "2011-11-01", "2010-12-06"
DAY = 86_400
POLICIES: Mapping[str, Mapping[str, Any]] = {
    "keeps everything": {},
    "2 occurrences": {"admission": {"kind": "min_count", "count": 2}},
    "5 occurrences": {"admission": {"kind": "min_count", "count": 5}},
    "ttl 30 days": {"ttl_seconds": 30 * DAY},
    "ttl 7 days": {"ttl_seconds": 7 * DAY},
    "2 occurrences, ttl 30 days": {"admission": {"kind": "min_count", "count": 2}, "ttl_seconds": 30 * DAY},
    "at most 10,000 rows": {"max_rows": 10_000},
}


def contend(name: str, seed: int, quick: bool) -> dict[str, Any]:
    """One contender's figures, in this process."""
    from embtables.pipelines.config import load_config
    from embtables.pipelines.online import run_online

    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        changes = [
            f"tables.{table}.{key}={json.dumps(value)}" for table in TABLES for key, value in POLICIES[name].items()
        ]
        changes += [f"train.runs_dir={folder}/runs", f"train.seed={seed}", "train.threads=1", "train.batch_size=1024"]
        newest = f"{{name: newest, where: ['event_time >= {QUICK_FROM if quick else FROM}']}}"
        changes += [f"evaluate.slices=[{newest}]", "data.split=null", "data.shuffle=null", "publish={keep: 1}"]
        changes += [f"online={{sync_seconds: {DAY}, report_seconds: {DAY}, checkpoint_every_syncs: 1000000}}"]
        changes += ["train.max_steps=300"] if quick else []
        config = load_config(LOGS["online_retail"].write(folder), changes)
        report = run_online.online(config, "replay", shown=False)
        lines = map(json.loads, (Path(report["run_dir"]) / "metrics.jsonl").read_text().splitlines())
        days = [
            {of: line[of] for of in ("from", "auc", "rows", "table_rows", "table_bytes")}
            for line in lines
            if line["part"] == "online"
        ]
    figures = {of: report["slices"]["newest"].get(of) for of in ("auc", "log_loss", "calibration", "rows")}
    return {**figures, "auc_of_all": report["auc"], "days": days, "tables": report["tables"]}


def text(found: dict[str, list[dict[str, Any]]]) -> str:
    """The table: what is gained against keeping everything first."""
    base = found["keeps everything"]
    lines = []
    for name, runs in found.items():
        gains = [run["auc"] - of["auc"] for run, of in zip(runs, base, strict=True)]
        last, all_days = runs[0]["days"][-1], runs[0]["days"]
        mib = [day["table_bytes"] / 2**20 for day in all_days]
        share = max(day["table_bytes"] for day in all_days) / max(day["table_bytes"] for day in base[0]["days"])
        cells = [_harness.Spread.of(gains).text("+.4f"), f"{share:.2f}", name]
        cells += [_harness.Spread.of([run[of] for run in runs]).text(".4f") for of in ("auc", "log_loss", "auc_of_all")]
        rows = [f"{max(day['table_rows'] for day in all_days):,}", f"{last['table_rows']:,}"]
        lines.append([*cells, *rows, f"{max(mib):.1f}", f"{mib[-1]:.1f}"])
    head = ["AUC gain", "peak bytes", "tables", "AUC", "log loss", "AUC, all days"]
    head += ["most rows", "rows at the end", "most MiB", "MiB at the end"]
    rows, whole = base[0]["rows"], sum(day["rows"] for day in base[0]["days"])
    return (
        f"{_harness.table(head, lines)}\n\n{whole:,} rows, of which the {rows:,} of the newest days are judged; "
        f"batches of 1,024, a version for each day, {len(base)} seeds. Bytes are those of rows, optimizer states "
        "and maps of all tables. Negatives are sampled: figures compare only under this "
        "sampling."
    )


def main() -> None:
    options = _harness.parser(__doc__)
    options.add_argument("--seeds", type=int, default=3)
    options.add_argument("--contender", nargs=2, metavar=("NAME", "SEED"), help=argparse.SUPPRESS)
    args = options.parse_args()
    if args.contender is not None:
        name, seed = args.contender
        print(json.dumps(contend(name, int(seed), args.quick)))
        return
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.loop.admission", *(["--quick"] if args.quick else [])]
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in POLICIES}
    for seed in range(1 if args.quick else args.seeds):
        commands = {name: [*command, "--contender", name, str(seed)] for name in POLICIES}
        for name, runs in _harness.interleave(commands, 1, timeout_seconds=1800).items():
            found[name] += runs
    _harness.finish("admission", "Admission and expiry", found, text(found), args, "loop.admission")


if __name__ == "__main__":
    main()
