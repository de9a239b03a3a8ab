"""Batches for one and two ranks on one machine: our reader, of which every rank decodes the whole log, and Ray Data.

The log is that of `benchmarks.reader` (synthetic, 250,000 rows x 40 columns), shuffled in a buffer of 131,072 rows;
both make batches of 4,096 rows per rank by the same feature stage. The second of two epochs is timed, from its
beginning until the last rank is through. Starting Ray is not counted.
"""

from __future__ import annotations

import argparse
import json
import logging
import multiprocessing
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks import _harness
from benchmarks.reader import BATCH, log_of, ours, write_log

BUFFER_ROWS = 131_072


def _rank(rank: int, ranks: int, folder: str, turns: Any) -> None:
    torch.set_num_threads(1)
    for _ in range(2):
        turns.wait()
        ours(Path(folder), shuffled=True, rank=rank, ranks=ranks)
        turns.wait()


def with_reader(folder: Path, ranks: int) -> float:
    """Seconds of an epoch that processes of their own read."""
    context = multiprocessing.get_context("spawn")
    turns = context.Barrier(ranks + 1)
    processes = [context.Process(target=_rank, args=(r, ranks, str(folder), turns)) for r in range(ranks)]
    for process in processes:
        process.start()
    for _ in range(2):
        turns.wait()
        started = time.perf_counter()
        turns.wait()
        seconds = time.perf_counter() - started
    for process in processes:
        process.join()
    return seconds


def with_ray_data(folder: Path, ranks: int) -> float:
    """Seconds of an epoch that actors read, each its split of one stream."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ["RAY_DATA_DISABLE_PROGRESS_BARS"] = "1"
    import ray

    ray.init(
        address="local", num_cpus=2, include_dashboard=False, _node_ip_address="127.0.0.1", logging_level=logging.ERROR
    )

    @ray.remote(num_cpus=0)
    class Rank:
        def epoch(self, split: Any) -> int:
            from embtables.inputs.features import FeatureTransform, FittedTransforms

            torch.set_num_threads(1)
            transform, rows = FeatureTransform.for_training(log_of(folder, shuffled=True).schema, FittedTransforms()), 0
            for table in split.iter_batches(
                batch_size=BATCH, batch_format="pyarrow", local_shuffle_buffer_size=BUFFER_ROWS, local_shuffle_seed=0
            ):
                rows += transform.batch(table.combine_chunks()).num_rows
            return rows

    splits = ray.data.read_parquet(str(folder)).streaming_split(ranks, equal=False)
    actors = [Rank.remote() for _ in range(ranks)]  # type: ignore[attr-defined]
    for _ in range(2):
        started = time.perf_counter()
        rows = ray.get([actor.epoch.remote(split) for actor, split in zip(actors, splits, strict=True)])
        seconds = time.perf_counter() - started
    assert sum(rows) == ray.data.read_parquet(str(folder)).count(), rows
    ray.shutdown()
    return seconds


CONTENDERS = {"reader": with_reader, "Ray Data": with_ray_data}


def main() -> None:
    options = _harness.parser(__doc__)
    options.add_argument("--contender", choices=list(CONTENDERS), help=argparse.SUPPRESS)
    options.add_argument("--ranks", type=int, help=argparse.SUPPRESS)
    options.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    args = options.parse_args()
    if args.contender is not None:
        print(json.dumps({"seconds": CONTENDERS[args.contender](args.folder, args.ranks)}))
        return
    rows, repeats = (100_000, 1) if args.quick else (250_000, 3)
    with tempfile.TemporaryDirectory() as name:
        write_log(Path(name) / "log", rows)
        found = _harness.interleave(
            {
                f"{contender}, {ranks} ranks": [
                    *(sys.executable, "-W", "ignore", "-m", "benchmarks.ray_data", "--contender", contender),
                    *("--ranks", str(ranks), "--folder", str(Path(name) / "log")),
                ]
                for ranks in (1, 2)
                for contender in CONTENDERS
            },
            repeats,
        )
    rates = {name: _harness.Spread.of([rows / run["seconds"] / 1e6 for run in runs]) for name, runs in found.items()}
    lines = []
    for name, rate in rates.items():
        of_ray = rate.median / rates["Ray Data" + name[name.index(",") :]].median
        lines.append([name, f"{of_ray:.2f}", f"{rate.median:.2f}", f"{rate.low:.2f}-{rate.high:.2f}"])
    text = (
        f"Synthetic log of {rows:,} rows x 40 columns, two cores, medians of {repeats} interleaved processes.\n\n"
        f"{_harness.table(['contender', 'of Ray Data', 'M rows/s, all ranks', 'spread'], lines)}"
    )
    _harness.finish("ray_data", "Reader and Ray Data", found, text, args)


if __name__ == "__main__":
    main()
