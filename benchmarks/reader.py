"""How fast the reader is beside a bare pyarrow scanner, and whether a log ten times longer takes more memory.

A log of 1M rows x 40 columns (26 integer ids, 2 integer lists of about 10 and 20, 11 floats, a label), snappy, row
groups of 131,072; synthetic. The bare scanner decodes batches of 131,072 rows and lays every column out as numpy; the
reader makes batches of 4,096 with ids, dense, label.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from benchmarks import _harness

if TYPE_CHECKING:
    from embtables.pipelines.sources.parquet import Log

IDS, LISTS, FLOATS = 26, (10, 20), 11
VOCABULARY = (100, 1_000, 10_000, 100_000, 1_000_000, 5_000_000)
FILE_ROWS = 250_000
BATCH = 4096


def write_log(folder: Path, rows: int, *, strings: bool = False) -> None:
    """Files of 250,000 rows; `strings`: the ids as text."""
    folder.mkdir(parents=True)
    for number in range(max(1, rows // FILE_ROWS)):
        rng = np.random.default_rng(number)
        n = min(rows, FILE_ROWS)
        columns: dict[str, pa.Array] = {}
        for i in range(IDS):
            ids = (rng.random(n) ** 3 * VOCABULARY[i % len(VOCABULARY)]).astype(np.int64)
            columns[f"c{i}"] = pa.array(ids).cast(pa.string()) if strings else pa.array(ids)
        for j, mean in enumerate(LISTS):
            lengths = rng.poisson(mean, n)
            offsets = np.zeros(n + 1, np.int32)
            np.cumsum(lengths, out=offsets[1:])
            values = (rng.random(int(offsets[-1])) ** 3 * 1_000_000).astype(np.int64)
            columns[f"l{j}"] = pa.ListArray.from_arrays(pa.array(offsets), pa.array(values))
        for i in range(FLOATS):
            columns[f"d{i}"] = pa.array(rng.random(n, dtype=np.float32))
        columns["label"] = pa.array((rng.random(n) < 0.2).astype(np.int8))
        pq.write_table(pa.table(columns), folder / f"{number:03}.parquet", compression="snappy", row_group_size=131_072)


def bare(folder: Path) -> int:
    """Rows read by the bare scanner, every column as numpy."""
    rows = 0
    for batch in ds.dataset(folder).scanner(batch_size=131_072, use_threads=True).to_batches():
        for column in batch.columns:
            if pa.types.is_list(column.type):
                column.flatten().to_numpy()
                column.offsets.to_numpy()
            elif pa.types.is_string(column.type):
                column.buffers()  # decoded by Arrow; numpy would make Python objects
            else:
                column.to_numpy(zero_copy_only=False)
        rows += batch.num_rows
    return rows


def log_of(folder: Path, *, shuffled: bool) -> Log:
    """The log with its schema."""
    from embtables.pipelines.sources.parquet import Log
    from embtables.schema import LogConfig, Schema, validate

    table = {"name": "t", "dim": 4, "num_rows": 100, "optimizer": {"kind": "sgd", "learning_rate": 1}}
    features = [f"c{i}" for i in range(IDS)] + [f"l{j}" for j in range(len(LISTS))]
    content: dict[str, Any] = {
        "name": "bench",
        "tables": [table],
        "features": [{"name": name, "table": "t"} for name in features],
        "labels": [{"column": "label"}],
        "dense": [{"column": f"d{i}"} for i in range(FLOATS)],
    }
    data = {"path": str(folder), "shuffle": {"buffer_rows": 131_072} if shuffled else None}
    return Log(validate(Schema, content), validate(LogConfig, data))


def ours(folder: Path, *, shuffled: bool, rank: int = 0, ranks: int = 1) -> int:
    """Rows read by our reader."""
    from embtables.pipelines.sources.parquet import ParquetReader

    log = log_of(folder, shuffled=shuffled)
    reader = ParquetReader(
        log,
        "train",
        batch_size=BATCH * ranks,
        fitted=log.fit_transforms(0),
        seed=0 if shuffled else None,
        rank=rank,
        world_size=ranks,
    )
    return sum(item.batch.num_rows for item in reader)


CONTENDERS = {
    "bare scanner": lambda folder: bare(folder / "ints"),
    "reader": lambda folder: ours(folder / "ints", shuffled=False),
    "reader, shuffled": lambda folder: ours(folder / "ints", shuffled=True),
    "bare scanner, string ids": lambda folder: bare(folder / "strings"),
    "reader, string ids": lambda folder: ours(folder / "strings", shuffled=False),
    "reader, 10x longer log": lambda folder: ours(folder / "long", shuffled=False),
}


def contend(name: str, folder: Path) -> dict[str, Any]:
    """One process's figures: the second of two passes, so that imports and the page cache are warm."""
    passes = 1 if "10x" in name else 2
    for _ in range(passes):
        started = time.perf_counter()
        rows = CONTENDERS[name](folder)
        seconds = time.perf_counter() - started
    return {"rows_per_second": rows / seconds, "peak_mib": _harness.peak_memory_mib()}


def measure(folder: Path, repeats: int) -> dict[str, Any]:
    """Rates and peak memory of all contenders, interleaved."""
    commands = {
        name: [sys.executable, "-W", "ignore", "-m", "benchmarks.reader", "--contender", name, "--folder", str(folder)]
        for name in CONTENDERS
    }
    long_log = {name: commands.pop(name) for name in list(commands) if "10x" in name}
    found = _harness.interleave(commands, repeats) | _harness.interleave(long_log, 1)
    rates = {name: _harness.Spread.of([r["rows_per_second"] for r in runs]) for name, runs in found.items()}
    memory = {name: _harness.Spread.of([r["peak_mib"] for r in runs]) for name, runs in found.items()}
    return {"rates": rates, "memory": memory}


def report(measured: dict[str, Any], rows: int, repeats: int) -> str:
    """The section's text: ratios first."""
    rates, memory = measured["rates"], measured["memory"]
    lines = []
    for name, rate in rates.items():
        against = "bare scanner, string ids" if "string" in name else "bare scanner"
        lines.append(
            [
                name,
                f"{rate.median / rates[against].median:.2f}",
                f"{rate.median / 1e6:.2f}",
                f"{rate.low / 1e6:.2f}-{rate.high / 1e6:.2f}",
                f"{memory[name].median:,.0f}",
            ]
        )
    table = _harness.table(["contender", "of bare", "M rows/s", "spread", "peak MiB"], lines)
    share = rates["reader"].median / rates["bare scanner"].median
    growth = memory["reader, 10x longer log"].median / memory["reader"].median - 1
    return (
        f"{table}\n\nSynthetic log of {rows:,} rows x 40 columns, median of {repeats} interleaved processes (the "
        f"longer log: one). Goal: 0.60 of the bare scanner in path order, measured {share:.2f}. "
        f"A log 10 times longer changes peak memory by {growth:+.0%} (goal: within 10 %)."
    )


def main() -> None:
    options = _harness.parser(__doc__)
    options.add_argument("--contender", choices=list(CONTENDERS), help=argparse.SUPPRESS)
    options.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    args = options.parse_args()
    if args.contender is not None:
        print(json.dumps(contend(args.contender, args.folder)))
        return
    rows, repeats = (250_000, 2) if args.quick else (1_000_000, 7)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_log(folder / "ints", rows)
        write_log(folder / "strings", rows, strings=True)
        write_log(folder / "long", 10 * rows)
        measured = measure(folder, repeats)
    plain = {key: {n: s.median for n, s in spreads.items()} for key, spreads in measured.items()}
    _harness.finish("reader", "Reader", plain, report(measured, rows, repeats), args)


if __name__ == "__main__":
    main()
